"""Story worlds: a program that simulates small worlds and tells what happens in them, to make training stories."""
