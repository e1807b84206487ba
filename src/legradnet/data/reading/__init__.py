"""Reading strangers' files: at once what can only be quick and small, all else in processes of its own."""
