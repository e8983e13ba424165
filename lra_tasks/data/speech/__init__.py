"""Speech Commands: one spoken word a clip of a second, as samples or as cepstral coefficients."""
