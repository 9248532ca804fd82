"""The same operation as it is usually written, with the same promises on paper."""
