"""LoopCTR and StackCTR."""
