"""Readers of CREMA-D, RAVDESS and a plain folder: names, tables, what is left out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.corpora import crema_d, folder, ravdess
from data_prep.corpora.corpus import truth_files, without_lfs_pointers
from data_prep.errors import UserError
from data_prep.media.container import LFS_POINTER
from data_prep.synthetic.truth import COLUMNS


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@given(
    st.integers(0, 9999),
    st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=3, max_size=3),
    st.sampled_from(crema_d.CLASSES),
    st.sampled_from(crema_d.LEVELS),
)
def test_every_official_crema_d_name_is_read(actor, sentence, label, level):
    expected = {
        "actor": f"{actor:04d}",
        "sentence": sentence,
        "label": label,
        "intensity": level,
    }
    assert crema_d.parse_name(f"{actor:04d}_{sentence}_{label}_{level}") == expected


@given(st.text(max_size=20))
def test_no_text_breaks_the_name_parsers(text):
    for parse in (crema_d.parse_name, ravdess.parse_name):
        assert parse(text) is None or len(text) > 10


@pytest.mark.parametrize("stem", ["1001_DFA_ANG", "101_DFA_ANG_XX", "1001_DFA_JOY_XX", "x"])
def test_other_names_are_no_crema_d_clips(stem):
    assert crema_d.parse_name(stem) is None


def test_the_published_clip_with_a_lost_letter_has_its_votes_and_counts_once(tmp_path):
    assert crema_d.parse_name("1040_ITH_SAD_X")["intensity"] == "XX"
    touch(tmp_path, "VideoFlash/1040_ITH_SAD_X.flv", "VideoMP4/1040_ITH_SAD_XX.mp4")
    touch(tmp_path, "AudioWAV/1040_ITH_SAD_XX.wav")
    (tmp_path / "summaryTable.csv").write_text(
        "FileName,VoiceVote,FaceVote,MultiModalVote\n1040_ITH_SAD_XX,N,N,F\n"
    )
    corpus = crema_d.read_corpus(tmp_path)
    (job,) = corpus.jobs
    assert (job.clip_id, job.vote_multimodal) == ("1040_ITH_SAD_XX", "FEA")
    assert job.audio_path.name == "1040_ITH_SAD_XX.wav"
    assert len(corpus.excluded) == 1


def test_files_that_git_lfs_did_not_fetch_are_one_line(tmp_path):
    touch(tmp_path, *(f"VideoFlash/1001_DFA_{name}_XX.flv" for name in crema_d.CLASSES))
    files = sorted(tmp_path.glob("VideoFlash/*"))
    for file in files[1:]:
        file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    corpus = crema_d.read_corpus(tmp_path)
    without_lfs_pointers(corpus, tmp_path)
    assert len(corpus.jobs) == 1
    assert {reason for _, reason in corpus.skipped} == {LFS_POINTER}
    files[0].unlink()
    with pytest.raises(UserError, match=r"the 5 clips .* Git LFS pointers.*run `git lfs pull`"):
        without_lfs_pointers(crema_d.read_corpus(tmp_path), tmp_path)


@pytest.mark.parametrize("other", ["happy", "HAPPY", "Hap py"])
def test_one_class_written_in_two_ways_is_refused(tmp_path, other):
    labels = tmp_path / "labels.csv"
    labels.write_text(f"file,label\na.mp4,Happy\nb.mp4,{other}\nc.mp4, sad \nd.mp4,sad\n")
    with pytest.raises(
        UserError, match=f"has the labels .*'{other}'.*; write one class in one way"
    ):
        folder.read_corpus(tmp_path, labels)


@pytest.mark.parametrize(
    ("letters", "name"),
    [("N", "NEU"), ("A:D", "ANG:DIS"), ("F:H:S", "FEA:HAP:SAD"), ("", ""), ("Q", "")],
)
def test_votes_are_class_names_and_ties_keep_all(letters, name):
    assert crema_d.vote_name(letters) == name


def test_crema_d_clips_carry_demographics_votes_and_the_sound_beside_them(tmp_path):
    touch(
        tmp_path,
        "VideoFlash/1001_DFA_ANG_XX.flv",
        "VideoFlash/1002_DFA_SAD_LO.flv",
        "VideoFlash/._1001_DFA_ANG_XX.flv",
        "VideoMP4/1001_DFA_ANG_XX.mp4",
        "AudioWAV/1001_DFA_ANG_XX.wav",
        "AudioMP3/1001_DFA_ANG_XX.mp3",
        "AudioMP3/1002_DFA_SAD_LO.mp3",
    )
    touch(tmp_path, "extra/holiday.mp4", "readme.txt")
    (tmp_path / "VideoDemographics.csv").write_text(
        '"ActorID","Age","Sex","Race","Ethnicity"\n1001,51,"Male","Caucasian","Not Hispanic"\n'
    )
    (tmp_path / "processedResults").mkdir()
    (tmp_path / "processedResults/summaryTable.csv").write_text(
        '"","FileName","VoiceVote","VoiceLevel","FaceVote","FaceLevel","MultiModalVote",'
        '"MultiModalLevel"\n"1","1001_DFA_ANG_XX","A:D","60","N","92","A","64"\n'
    )
    corpus = crema_d.read_corpus(tmp_path)
    first, second = corpus.jobs
    assert first.path == tmp_path / "VideoFlash/1001_DFA_ANG_XX.flv"
    assert (first.sex, first.age, first.label, first.actor) == ("male", 51, "ANG", "1001")
    assert (first.vote_voice, first.vote_face, first.vote_multimodal) == ("ANG:DIS", "NEU", "ANG")
    assert first.audio_path == tmp_path / "AudioWAV/1001_DFA_ANG_XX.wav"
    assert (second.sex, second.age, second.vote_voice) == ("", -1, "")
    assert second.audio_path == tmp_path / "AudioMP3/1002_DFA_SAD_LO.mp3"
    assert [file for file, _ in corpus.skipped] == ["extra/holiday.mp4"]
    assert "ACTOR_SENTENCE_EMOTION_LEVEL" in corpus.skipped[0][1]
    assert corpus.excluded == [
        ("VideoMP4/1001_DFA_ANG_XX.mp4", "same clip as VideoFlash/1001_DFA_ANG_XX.flv")
    ]
    assert corpus.notes == []


def test_tables_and_sound_are_found_from_within_the_clips_folder(tmp_path):
    touch(tmp_path, "VideoFlash/1001_DFA_ANG_XX.flv", "AudioWAV/1001_DFA_ANG_XX.wav")
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/VideoDemographics.csv").write_text("ActorID,Age,Sex\n1001,51,Male\n")
    corpus = crema_d.read_corpus(tmp_path / "VideoFlash")
    (job,) = corpus.jobs
    assert job.age == 51
    assert job.audio_path == tmp_path / "AudioWAV/1001_DFA_ANG_XX.wav"
    assert len(corpus.notes) == 1
    assert "summaryTable.csv" in corpus.notes[0]


def test_the_real_tables_are_read_whole(real_clips):
    corpus = crema_d.read_corpus(real_clips / "clips")
    assert [(job.sex, job.age) for job in corpus.jobs] == [("male", 51)] * 4
    assert all(job.vote_voice for job in corpus.jobs)
    assert corpus.notes == []
    votes = crema_d.crowd_votes(real_clips / "tables/summaryTable.csv")
    assert len(votes) == 7442
    assert all(vote["vote_multimodal"] for vote in votes.values())


def test_ravdess_takes_audio_video_speech_and_leaves_the_rest_out(tmp_path):
    touch(
        tmp_path,
        "Actor_12/01-01-03-02-01-01-12.mp4",
        "Actor_12/02-01-03-02-01-01-12.mp4",
        "Actor_12/01-02-03-02-01-01-12.mp4",
        "Actor_12/03-01-03-02-01-01-12.wav",
        "Actor_12/other.mp4",
    )
    corpus = ravdess.read_corpus(tmp_path)
    (job,) = corpus.jobs
    assert (job.label, job.actor, job.sex) == ("HAP", "12", "female")
    assert (job.intensity, job.sentence, job.age) == ("strong", "01", -1)
    assert len(corpus.excluded) == 3
    assert len(corpus.skipped) == 1
    assert all("not audio-video speech" in reason for _, reason in corpus.excluded)


def test_ravdess_emotion_codes_follow_the_official_order():
    names = [ravdess.parse_name(f"01-01-0{code}-01-01-01-01") for code in range(1, 9)]
    found = [name["label"] for name in names]
    assert found == ["NEU", "CAL", "HAP", "SAD", "ANG", "FEA", "DIS", "SUR"]
    assert names[0]["sex"] == "male"


@pytest.mark.parametrize("reader", [crema_d, ravdess])
def test_an_absent_or_empty_source_is_one_clear_line(tmp_path, reader):
    with pytest.raises(UserError, match="no folder"):
        reader.read_corpus(tmp_path / "absent")
    with pytest.raises(UserError, match="no video files under"):
        reader.read_corpus(tmp_path)


def test_a_folder_is_read_by_its_csv(tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text(
        "\ufefffile, label,actor\nb/x.mp4,happy,Ann\na.mov,angry,\na.mov,angry,\nc.mp4,,\n"
    )
    corpus = folder.read_corpus(tmp_path, table)
    assert corpus.classes == ("angry", "happy")
    assert [(j.clip_id, j.label, j.actor) for j in corpus.jobs] == [
        ("b/x", "happy", "Ann"),
        ("a", "angry", ""),
    ]
    assert [reason for _, reason in corpus.skipped] == [
        "listed twice in labels.csv",
        "no label in labels.csv",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,label\nx,y\n", "expected file,label"),
        ("file,label\n", "lists no files"),
        ("file,label\na,x\nb,x\n", r"has only one label \(x\), expected at least 2"),
        ("file,label\na,\n", "has no label, expected at least 2"),
        ("file;label\na;x\n", "commas instead of semicolons"),
        ("File,Label\na,x\n", "header in lower case"),
        ("file,label\n\udcff,x\n", "is not UTF-8 text"),
        (f"file,label\n{'a' * 200_000},x\n", "is no CSV file"),
        ("", "has the columns nothing"),
    ],
)
def test_a_useless_csv_is_one_clear_line(tmp_path, text, message):
    (tmp_path / "labels.csv").write_text(text, errors="surrogateescape")
    with pytest.raises(UserError, match=message):
        folder.read_corpus(tmp_path, tmp_path / "labels.csv")


def test_one_clip_spelled_twice_is_listed_and_none_is_taken_from_elsewhere(tmp_path):
    source, table = tmp_path / "clips", tmp_path / "labels.csv"
    source.mkdir()
    lines = [
        "x.flv,a",
        "./x.flv,a",
        f"{source}/x.flv,b",
        "a/../x.mp4,b",
        "x.mp4.mov,b",
        "..x.mp4,a",
    ]
    outside = ["../y.flv", "/etc/y.flv", ".", "a/../../y.flv"]
    table.write_text("\n".join(["file,label", *lines, *(f"{name},a" for name in outside)]))
    corpus = folder.read_corpus(source, table)
    assert [(job.clip_id, str(job.path.relative_to(source))) for job in corpus.jobs] == [
        ("x", "x.flv"),
        ("x.mp4", "x.mp4"),
        ("x.mp4.mov", "x.mp4.mov"),
        ("..x", "..x.mp4"),
    ]
    assert [file for file, _ in corpus.skipped] == ["./x.flv", f"{source}/x.flv", *outside]
    assert {reason for _, reason in corpus.skipped[2:]} == {
        "lies outside the folder given with --source"
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"ActorID,Age,Sex\n1001,51\n", "line 2: 2 of 3 columns"),
        (b"ActorID,Age,Sex\n1001,51,\xff\n", "is not UTF-8 text"),
        (b"ActorID,Age,Sex\n1001,51," + b"x" * 200_000, "is no CSV file"),
        (b"Actor,Age\n", "has no column ActorID"),
    ],
)
def test_a_damaged_table_is_named(tmp_path, content, message):
    touch(tmp_path, "1001_DFA_ANG_XX.mp4")
    (tmp_path / "VideoDemographics.csv").write_bytes(content)
    with pytest.raises(UserError, match=rf"VideoDemographics\.csv.*{message}.*replace it"):
        crema_d.read_corpus(tmp_path)


def test_only_the_synthetic_corpus_own_tables_are_its_truth(tmp_path):
    table, boxes = tmp_path / "truth.csv", tmp_path / "truth.npz"
    table.write_text("file,emotion\n")
    boxes.touch()
    (tmp_path / "truth.md").touch()
    assert truth_files(tmp_path) == []
    table.write_text(",".join(COLUMNS) + "\n")
    assert truth_files(tmp_path) == [table, boxes]
    boxes.unlink()
    assert truth_files(tmp_path) == []
