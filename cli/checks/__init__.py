"""What comes from outside - text, numbers, frames, proxies, words of libraries - is checked here before it is used or shown."""
