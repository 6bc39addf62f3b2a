"""What BERT is fine-tuned for."""
