"""What loses, falsifies, saturates or randomises the gradient: each detector looks for one kind of harm."""
