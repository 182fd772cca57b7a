"""What a row holds, and how rows become batches; no model is known here."""
