"""Files that hold many pictures, or say where they are: tables and arrays."""
