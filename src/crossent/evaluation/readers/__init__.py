"""Arrays on disk, of any size: .npy, .npz and .safetensors, read by position and never mapped."""
