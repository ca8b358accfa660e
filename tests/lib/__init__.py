"""What the whole-system tests share: processes in a folder of their own (world), weight files (weights)."""
