"""Reading and writing weights: T5X, Hugging Face, PEFT, bundles."""
