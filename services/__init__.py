"""Services beside the node daemon. They stand on `membridge` and never the other way round."""
