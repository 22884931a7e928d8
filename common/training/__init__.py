"""How is it trained? A stage: its inputs, its loop, its step, its batches, and what it leaves."""
