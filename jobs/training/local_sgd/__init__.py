"""Local SGD: training in rounds of local steps, with parameter averaging (`average`) or DiLoCo (`diloco`)."""
