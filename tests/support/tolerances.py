"""Every tolerance of the test suite, with its reason. None is widened to pass."""

# float32 at the highest matmul precision, against big_vision's own numbers on the
# same weights: entries of unit vectors, where two orders of summation differ by 3e-7.
EMBEDDING = 1e-6

# The same for logits, relative to their size: at |logit| = 16 one unit in the last
# place of float32 is already 1.9e-6, so no absolute 1e-6 exists there.
LOGIT_RELATIVE = 1e-6

# Activations inside the towers are sums of up to 100 products of numbers up to 10, not
# yet normalised: 16 roundings of 1.2e-7, relative to the largest of them.
ACTIVATION_RELATIVE = 2e-6

# bfloat16 has 8 bits: one rounding that falls the other way moves an activation by
# 2^-8 of itself. Measured against big_vision's bfloat16: see test_models.
BFLOAT16_EMBEDDING = 4e-3

# The bfloat16 nearest to a number, relative to it: half a unit in the last of 8 bits.
BFLOAT16_ROUNDING = 2**-8

# The loss and its gradients in float32 against float64, relative to the value and to the
# largest entry of a gradient. At a temperature of 117 logits reach 100, where one unit in
# the last place is 7.6e-6: it moves a term of the sum by as much, relatively. Terms round
# independently, so that their sum keeps a digit more; measured up to 4096: 1e-6 at most.
LOSS_RELATIVE = 1e-5

# The same in float64: the order of summation of up to 4096^2 terms, nothing else.
LOSS_FLOAT64_RELATIVE = 1e-10

# Gradients of a small model's weights in float32, relative to the largest of them all: the
# same sums over a batch in another order, in parts or over devices, before and after they
# pass the towers. Measured: 1.1e-6 (sigmoid), 2.3e-6 (softmax, whose terms cancel more).
ACCUMULATED_RELATIVE = 5e-6

# Weights after 20 to 40 steps of Adam on one device and on eight, each relative to its own norm.
# Sums in another order differ by 1e-6 of the gradient; where an entry's gradients are small,
# Adam divides by that smallness. After 200 steps biases were measured 2.0e-3 apart on one
# processor and 9.4e-3 on another: so long a run says more of the processor than of the code.
TRAINED_RELATIVE = 5e-3

# Least cosine with float32 of embeddings whose weights and activations are rounded to 8 bits: a
# step of 1/255 of a row's range moves a sum by a hundredth of itself, and 1 - cosine is half the
# square of what 70 such matmuls add up to. Measured on B/16 with random weights: 0.9996.
INT8_COSINE = 0.999
