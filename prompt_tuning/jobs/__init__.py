"""What commands do, in plain values; knows nothing of gin or flags."""
