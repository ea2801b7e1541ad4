"""ResNet-LSTM: a residual network per frame or segment, and a network over their sequence."""
