"""What every spout and bolt of Clicktide shares on Storm's side: the wire and the base classes."""
