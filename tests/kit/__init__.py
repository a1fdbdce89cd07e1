"""What tests of the engine share: time that jumps, a scripted provider, a watcher, and everything outside in memory."""
