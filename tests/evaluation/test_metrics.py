"""Scores agree with scikit-learn, also where classes are missing; calibration and intervals."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import sklearn.metrics

from aver_jax.evaluation import bootstrap, metrics


@st.composite
def decisions(draw):
    num_classes = draw(st.integers(2, 7))
    size = draw(st.integers(1, 60))
    classes = st.integers(0, num_classes - 1)
    labels = draw(st.lists(classes, min_size=size, max_size=size))
    predictions = draw(st.lists(classes, min_size=size, max_size=size))
    return num_classes, np.array(labels), np.array(predictions)


@hypothesis.given(decisions())
@hypothesis.settings(max_examples=60, deadline=None)
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true:UserWarning")
@pytest.mark.filterwarnings("ignore:A single label was found:UserWarning")
@pytest.mark.filterwarnings("ignore:The number of unique classes:UserWarning")
def test_scores_agree_with_scikit_learn_whatever_classes_are_missing(case):
    num_classes, labels, predictions = case
    confusion = metrics.confusion_matrix(labels, predictions, num_classes)
    np.testing.assert_array_equal(
        confusion,
        sklearn.metrics.confusion_matrix(labels, predictions, labels=np.arange(num_classes)),
    )
    assert metrics.war(confusion) == pytest.approx(
        sklearn.metrics.accuracy_score(labels, predictions)
    )
    assert metrics.uar(confusion) == pytest.approx(
        sklearn.metrics.balanced_accuracy_score(labels, predictions)
    )
    assert metrics.macro_f1(confusion) == pytest.approx(
        sklearn.metrics.f1_score(labels, predictions, average="macro", zero_division=0)
    )
    recall = metrics.per_class_recall(confusion)
    present = np.isin(np.arange(num_classes), labels)
    np.testing.assert_array_equal(np.isnan(recall), ~present)
    expected = sklearn.metrics.recall_score(
        labels, predictions, labels=np.flatnonzero(present), average=None, zero_division=0
    )
    np.testing.assert_allclose(recall[present], expected)


def test_loss_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    logits, labels = 3 * rng.normal(size=(50, 6)), rng.integers(0, 5, 50)
    ours = metrics.negative_log_likelihood(logits, labels).mean()
    probabilities = np.exp(metrics.log_softmax(logits))
    assert ours == pytest.approx(sklearn.metrics.log_loss(labels, probabilities, labels=range(6)))


def test_loss_survives_huge_logits():
    values = metrics.negative_log_likelihood([[1e5, 0.0], [0.0, -1e5]], [0, 0])
    np.testing.assert_allclose(values, [0.0, 0.0])


def test_scores_of_a_stack_equal_the_scores_of_each():
    confusions = np.random.default_rng(1).integers(0, 4, (5, 3, 3))
    for score in (metrics.war, metrics.uar, metrics.macro_f1, metrics.per_class_recall):
        np.testing.assert_array_equal(score(confusions), [score(c) for c in confusions])


def test_no_clips_is_unknown_and_not_zero():
    empty = np.zeros((3, 3))
    assert np.isnan([metrics.war(empty), metrics.uar(empty), metrics.macro_f1(empty)]).all()
    assert np.isnan(metrics.reliability(np.zeros((0, 3)), np.zeros(0, int)).error)


def test_a_class_outside_the_range_is_refused():
    with pytest.raises(ValueError, match=r"label in \[-1, 0\], expected \[0, 2\]"):
        metrics.confusion_matrix([0, -1], [0, 0], 3)


def test_calibration_error_of_a_case_worked_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.35, 0.65], [1.0, 0.0]])
    labels = [0, 1, 1, 0]
    # bins: 0.9 twice (accuracy .5), 0.65 (1), 1.0 (1)
    expected = (2 * abs(0.5 - 0.9) + abs(1 - 0.65) + 0) / 4
    assert metrics.reliability(probabilities, labels).error == pytest.approx(expected)


def test_bins_are_closed_above():
    bins = metrics.reliability(np.array([[0.8, 0.2]]), [0], bins=5)
    np.testing.assert_array_equal(bins.count, [0, 0, 0, 1, 0])


def test_calibrated_probabilities_have_a_small_error():
    rng = np.random.default_rng(2)
    probabilities = rng.dirichlet(np.ones(4), 20_000)
    labels = (probabilities.cumsum(1) > rng.random((20_000, 1))).argmax(1)
    assert metrics.reliability(probabilities, labels).error < 0.02
    sharpened = probabilities**3 / (probabilities**3).sum(1, keepdims=True)
    assert metrics.reliability(sharpened, labels).error > 0.1


@pytest.mark.parametrize("true_temperature", [0.3, 1.0, 2.5, 10.0])
def test_temperature_is_recovered(true_temperature):
    rng = np.random.default_rng(3)
    logits = 2 * rng.normal(size=(20_000, 5))
    probabilities = np.exp(metrics.log_softmax(logits))
    labels = (probabilities.cumsum(1) > rng.random((20_000, 1))).argmax(1)
    fitted = metrics.fit_temperature(logits * true_temperature, labels)
    assert fitted == pytest.approx(true_temperature, rel=0.05)


@hypothesis.given(st.integers(0, 2**32 - 1), st.floats(0.01, 500.0))
@hypothesis.settings(max_examples=30, deadline=None)
def test_temperature_never_raises_the_loss_it_was_fitted_on(seed, scale):
    rng = np.random.default_rng(seed)
    logits, labels = scale * rng.normal(size=(30, 4)), rng.integers(0, 4, 30)
    temperature = metrics.fit_temperature(logits, labels)
    before = metrics.negative_log_likelihood(logits, labels).mean()
    after = metrics.negative_log_likelihood(logits / temperature, labels).mean()
    assert after <= before + 1e-9


def test_temperature_stays_in_range_when_no_minimum_exists():
    logits = np.eye(3) * 5
    assert metrics.fit_temperature(logits, [0, 1, 2]) == pytest.approx(0.05)
    assert metrics.fit_temperature(logits, [1, 2, 0]) == pytest.approx(20.0)


def _correlated_clips(rng, actors=12, clips=20):
    """Actors differ in how often they are recognised; within an actor clips agree."""
    skill = rng.choice([0.1, 0.95], actors)
    labels = rng.integers(0, 3, actors * clips)
    right = rng.random(actors * clips) < np.repeat(skill, clips)
    return labels, np.where(right, labels, (labels + 1) % 3), np.repeat(np.arange(actors), clips)


def test_interval_equals_resampling_the_clips_of_drawn_actors_one_by_one():
    labels, predictions, actors = _correlated_clips(np.random.default_rng(4))
    drawn = bootstrap.draw_groups(12, samples=200, seed=5)
    scores = []
    for counts in drawn:
        clips = np.concatenate([np.flatnonzero(actors == a) for a in np.repeat(range(12), counts)])
        scores.append(sklearn.metrics.balanced_accuracy_score(labels[clips], predictions[clips]))
    interval = bootstrap.bootstrap_interval(
        metrics.uar, labels, predictions, actors, 3, samples=200, seed=5
    )
    np.testing.assert_allclose(interval, np.percentile(scores, [2.5, 97.5]))


def test_resampling_actors_gives_a_wider_interval_than_resampling_clips():
    labels, predictions, actors = _correlated_clips(np.random.default_rng(4))
    args = (metrics.war, labels, predictions)
    by_actor = bootstrap.bootstrap_interval(*args, actors, 3)
    by_clip = bootstrap.bootstrap_interval(*args, np.arange(len(labels)), 3)
    assert by_actor.high - by_actor.low > 2 * (by_clip.high - by_clip.low)
    assert by_actor.low < metrics.war(metrics.confusion_matrix(labels, predictions, 3))
    assert by_actor == bootstrap.bootstrap_interval(*args, actors, 3)


def test_interval_of_the_loss_equals_the_interval_of_accuracy_for_hits():
    labels, predictions, actors = _correlated_clips(np.random.default_rng(6))
    hits = bootstrap.bootstrap_mean_interval(labels == predictions, actors)
    war = bootstrap.bootstrap_interval(metrics.war, labels, predictions, actors, 3)
    np.testing.assert_allclose(hits, war)


def test_a_paired_difference_equals_scoring_both_on_the_same_drawn_actors():
    rng = np.random.default_rng(8)
    labels, one, actors = _correlated_clips(rng)
    other = np.where(rng.random(len(labels)) < 0.1, (one + 1) % 3, one)
    differences = []
    for counts in bootstrap.draw_groups(12, samples=200, seed=5):
        clips = np.concatenate([np.flatnonzero(actors == a) for a in np.repeat(range(12), counts)])
        differences.append(
            np.mean(one[clips] == labels[clips]) - np.mean(other[clips] == labels[clips])
        )
    found = bootstrap.paired_difference(
        metrics.war, labels, one, other, actors, 3, samples=200, seed=5
    )
    assert found.value == pytest.approx(np.mean(one == labels) - np.mean(other == labels))
    np.testing.assert_allclose(found[1:], np.percentile(differences, [2.5, 97.5]))


def test_a_small_advantage_on_every_actor_is_told_from_their_differences():
    # Actors differ much, the models little: intervals of each score overlap, the paired one is
    # above 0.
    labels, worse, actors = _correlated_clips(np.random.default_rng(4))
    better, step = worse.copy(), len(labels) // 12
    for actor in range(12):
        wrong = np.flatnonzero((actors == actor) & (worse != labels))[: step // 8]
        better[wrong] = labels[wrong]
    args = (metrics.uar, labels)
    one, other = (bootstrap.bootstrap_interval(*args, p, actors, 3) for p in (better, worse))
    assert one.low < other.high
    found = bootstrap.paired_difference(*args, better, worse, actors, 3)
    assert 0 < found.low < found.value < found.high
    swapped = bootstrap.paired_difference(*args, worse, better, actors, 3)
    np.testing.assert_allclose(swapped, [-found.value, -found.high, -found.low])
    assert bootstrap.paired_difference(*args, worse, worse, actors, 3) == (0, 0, 0)


def test_one_actor_has_no_interval():
    interval = bootstrap.bootstrap_interval(metrics.war, [0, 1], [0, 0], ["a", "a"], 2)
    recall = bootstrap.bootstrap_interval(metrics.per_class_recall, [0, 1], [0, 0], ["a", "a"], 2)
    loss = bootstrap.bootstrap_mean_interval([0.1, 0.2], ["a", "a"])
    pair = bootstrap.paired_difference(metrics.war, [0, 1], [0, 1], [0, 0], ["a", "a"], 2)
    assert pair.value == 0.5
    assert np.isnan([pair.low, pair.high]).all()
    assert np.isnan(interval).all()
    assert np.shape(recall) == (2, 2)
    assert np.isnan(recall).all()
    assert np.isnan(loss).all()


def test_a_class_missing_from_some_replicates_keeps_its_interval():
    labels, predictions = np.array([0, 0, 0, 1]), np.array([0, 1, 0, 1])
    recall = bootstrap.bootstrap_interval(
        metrics.per_class_recall, labels, predictions, [1, 2, 3, 4], 3
    )
    np.testing.assert_array_equal(recall.low[1:], [1.0, np.nan])
    assert 0 <= recall.low[0] < recall.high[0] <= 1
