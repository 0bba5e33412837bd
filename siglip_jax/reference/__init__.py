"""What is known about the right answer: bundled inputs, published numbers, wrong pipelines."""
