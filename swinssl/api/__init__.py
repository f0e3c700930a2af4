"""The functions that `import swinssl` offers; commands call them too."""
