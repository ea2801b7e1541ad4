"""Reports: figures, overlay videos and one self-contained HTML page; needs no accelerator."""
