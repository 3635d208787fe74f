"""Gaussian processes of infinitely wide networks, and their scale mixtures: heavy tails, exact where it can be."""

from typing import TYPE_CHECKING

from posterax.plugin import ComponentSpec, DemoSpec, PluginInfo, hookimpl, lazy

if TYPE_CHECKING:
    from ._activations import Activation as Activation
    from ._activations import Erf as Erf
    from ._activations import GaussHermite as GaussHermite
    from ._activations import ReLU as ReLU
    from ._classification import ScaleMixtureClassifier as ScaleMixtureClassifier
    from ._cnn import CNNKernel as CNNKernel
    from ._dense import MLPKernel as MLPKernel
    from ._dense import ResNetKernel as ResNetKernel
    from ._dense import networks as networks
    from ._kernel import Kernel as Kernel
    from ._kernel import Product as Product
    from ._kernel import Scaled as Scaled
    from ._kernel import Sum as Sum
    from ._mixture import MatrixStudentT as MatrixStudentT
    from ._mixture import ScaleMixture as ScaleMixture
    from ._priors import Atoms as Atoms
    from ._priors import BetaPrime as BetaPrime
    from ._priors import BurrXII as BurrXII
    from ._priors import GeneralizedInverseGaussian as GeneralizedInverseGaussian
    from ._regression import ScaleMixtureNNGP as ScaleMixtureNNGP
    from ._scale import ImportanceSample as ImportanceSample
    from ._scale import ScalePosterior as ScalePosterior
    from ._scale import importance as importance
    from ._scale import log_marginal as log_marginal
    from ._scale import scale_posterior as scale_posterior
    from ._stationary import MaternKernel as MaternKernel
    from ._stationary import RBFKernel as RBFKernel
    from ._trained_law import TrainedEnsembleLaw as TrainedEnsembleLaw
    from ._variational_elbo import VariationalBound as VariationalBound
    from ._variational_law import SharedScaleStudentT as SharedScaleStudentT

_HOMES = {
    "_activations": ("Activation", "Erf", "GaussHermite", "ReLU"),
    "_classification": ("ScaleMixtureClassifier",),
    "_cnn": ("CNNKernel",),
    "_dense": ("MLPKernel", "ResNetKernel", "networks"),
    "_kernel": ("Kernel", "Product", "Scaled", "Sum"),
    "_mixture": ("MatrixStudentT", "ScaleMixture"),
    "_priors": ("Atoms", "BetaPrime", "BurrXII", "GeneralizedInverseGaussian"),
    "_regression": ("ScaleMixtureNNGP",),
    "_scale": ("ImportanceSample", "ScalePosterior", "importance", "log_marginal", "scale_posterior"),
    "_stationary": ("MaternKernel", "RBFKernel"),
    "_trained_law": ("TrainedEnsembleLaw",),
    "_variational_elbo": ("VariationalBound",),
    "_variational_law": ("SharedScaleStudentT",),
}

__all__ = sorted(name for names in _HOMES.values() for name in names)  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__, __dir__ = lazy(__name__, _HOMES)

_SOURCE = "Lee, Yun, Yang and Lee (2022), arXiv:2107.01408"

# Parts of estimators: published so that files may hold them, and others may list and extend them.
_PARTS = {
    "kernel": {
        "mlp-kernel": ("_dense:MLPKernel", "Wide multilayer perceptron: NNGP and NTK."),
        "resnet-kernel": ("_dense:ResNetKernel", "Wide fully connected residual network: NNGP and NTK."),
        "cnn-kernel": ("_cnn:CNNKernel", "Wide convolutional network, flattened readout: NNGP and NTK."),
        "rbf-kernel": ("_stationary:RBFKernel", "Squared exponential kernel."),
        "matern-kernel": ("_stationary:MaternKernel", "Matérn kernel of smoothness 1/2, 3/2 or 5/2."),
        "sum-kernel": ("_kernel:Sum", "Sum of two kernels."),
        "product-kernel": ("_kernel:Product", "Product of two kernels."),
        "scaled-kernel": ("_kernel:Scaled", "A kernel times a positive number."),
    },
    "activation": {
        "relu": ("_activations:ReLU", "ReLU, leaky ReLU, absolute value: piecewise linear, closed form."),
        "erf": ("_activations:Erf", "The error function, closed form."),
        "gauss-hermite": ("_activations:GaussHermite", "Any smooth function, by its Hermite series."),
    },
    "scale-prior": {
        "burr-xii": ("_priors:BurrXII", "Burr type XII law of the scale."),
        "beta-prime": ("_priors:BetaPrime", "Beta prime law of the scale."),
        "generalized-inverse-gaussian": (
            "_priors:GeneralizedInverseGaussian",
            "Generalised inverse Gaussian law of the scale: conjugate.",
        ),
        "atoms": ("_priors:Atoms", "A discrete law of the scale."),
    },
    "ensemble-law": {
        "trained-ensemble": ("_trained_law:TrainedEnsembleLaw", "The law of trained wide networks; no posterior."),
    },
    "knowledge": {
        "regression-knowledge": ("_regression_law:Knowledge", "What a fitted regression knows of its data."),
        "sparse-process": (
            "_variational:SparseProcess",
            "A process at inducing points: what a classifier learns.",
        ),
        "inverse-gamma-scale": ("_variational_scale:InverseGammaScale", "An inverse gamma belief about the scale."),
        "point-scale": ("_variational_scale:PointScale", "A scale that is one number, learnt."),
    },
    "distribution": {
        "scale-posterior": ("_scale:ScalePosterior", "Law of the scale given data, by quadrature."),
        "scale-mixture": ("_mixture:ScaleMixture", "Gaussians with one shared random scale."),
        "matrix-student-t": ("_mixture:MatrixStudentT", "Multivariate Student-t with several outputs."),
        "shared-scale-student-t": (
            "_variational_law:SharedScaleStudentT",
            "Multivariate Student-t whose columns have covariances of their own and one scale.",
        ),
    },
}


@hookimpl
def posterax_plugin_info():
    return PluginInfo(
        "Scale mixtures of neural-network Gaussian processes: kernels, scale priors, regression, classification."
    )


@hookimpl
def posterax_components():
    return [
        ComponentSpec(
            "scale-mixture-nngp",
            kind="estimator",
            target="posterax_nngp._regression:ScaleMixtureNNGP",
            summary="Regression by a wide network with one random scale: Student-t process and its kin, exact.",
            tags={"exact"},
            source=_SOURCE,
            example="posterax_nngp._examples:regression",
        ),
        ComponentSpec(
            "scale-mixture-nngp-classifier",
            kind="estimator",
            target="posterax_nngp._classification:ScaleMixtureClassifier",
            summary="Classification by a wide network with one random scale: sparse variational, or by labels.",
            tags={"approximate", "bias=0.1"},
            source=_SOURCE,
            example="posterax_nngp._examples_classification:classifier",
        ),
    ] + [
        ComponentSpec(name, kind=kind, target=f"posterax_nngp.{target}", summary=summary)
        for kind, parts in _PARTS.items()
        for name, (target, summary) in parts.items()
    ]


@hookimpl
def posterax_demos():
    return [
        DemoSpec(
            "wide-networks",
            target="posterax_nngp._demo:wide_networks",
            summary="Wide networks with one random scale: a Student-t process and its exact answers.",
        )
    ]
