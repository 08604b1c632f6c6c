"""EncoderProbe: the component that blesses a pretrained encoder or refuses it, and the gate that holds the tasks back."""
