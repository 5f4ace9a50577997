"""Measures a model that tells stories: are they varied, do they keep what was wished for, are questions answered?"""
