"""Rate-distortion functions: closed forms and estimators. They share sources and proposals, not the codec."""
