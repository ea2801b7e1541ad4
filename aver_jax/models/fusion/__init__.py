"""The MRPN family: branches of video and audio, fused."""
