"""What the library is measured against, one idea a file: the same model by hand, or in another library."""
