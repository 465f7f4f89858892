"""The two tiny models that Pointsman trains itself: their prompt format, data generator, tokenizer and trainer."""
