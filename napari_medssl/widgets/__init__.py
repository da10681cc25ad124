"""What the user sees: signals out, setters in; a setter never writes back."""
