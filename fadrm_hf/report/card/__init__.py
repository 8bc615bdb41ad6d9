"""The card of an artifact: README.md as the Hub, `load_dataset` and readers use it, made from what was measured."""
