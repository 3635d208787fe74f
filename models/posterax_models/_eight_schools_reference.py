"""What the public database posteriordb says about the eight schools.

Means and standard deviations of the 10,000 reference draws (10 chains) of
`eight_schools-eight_schools_noncentered` in posteriordb 1.0, https://github.com/stan-dev/posteriordb;
described by Magnusson et al. (2024), arXiv:2407.04967. Copyright (c) 2011-2024, Stan Developers and their
Assignees, under the BSD 3-Clause License.
"""

EIGHT_SCHOOLS_REFERENCE = {
    "theta[1]": (6.150502293344254, 5.615863418889274),
    "theta[2]": (4.939581140742195, 4.645578113940842),
    "theta[3]": (3.9059060900158236, 5.280711952216745),
    "theta[4]": (4.79601675138494, 4.770938024092453),
    "theta[5]": (3.6144363246798967, 4.614720692235884),
    "theta[6]": (4.051147578967499, 4.796248400609525),
    "theta[7]": (6.317169758868929, 5.002855395177529),
    "theta[8]": (4.883996943532884, 5.317692056077128),
    "mu": (4.4105183369549295, 3.3092964767263533),
    "tau": (3.6020595236405932, 3.1984776709766325),
}
"""Mean and standard deviation by parameter; schools are numbered from 1 there."""
