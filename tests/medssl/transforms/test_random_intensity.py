from __future__ import annotations

import pytest
import torch

from medssl.transforms.random_intensity import RandomIntensity, random_tone_curve

LINKS = ("window", "tone", "gamma", "bias", "linear", "blur", "noise")
NEVER = {f"{link}_p": 0.0 for link in LINKS}
ALWAYS = {f"{link}_p": 1.0 for link in LINKS}


def test_probability_zero_is_the_identity(image, generator):
    assert torch.equal(RandomIntensity(**NEVER)(image, generator), image)


@pytest.mark.parametrize("link", LINKS)
def test_each_link_changes_values_and_stays_in_range(image, generator, link):
    out = RandomIntensity(**{**NEVER, f"{link}_p": 1.0})(image, generator)
    assert out.shape == image.shape
    assert ((out - image).flatten(1).abs().amax(dim=1) > 1e-4).all()
    assert out.min() >= 0
    assert out.max() <= 1


def test_the_generator_alone_decides(image):
    transform = RandomIntensity(**ALWAYS)
    first, same, other = (transform(image, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_samples_get_their_own_parameters(image, generator):
    transform = RandomIntensity(**{**ALWAYS, "noise_p": 0.0})
    out = transform(image[:1].expand_as(image), generator)
    for i in range(1, len(out)):
        assert (out[0] - out[i]).abs().max() > 1e-3


def test_parameters_belong_to_their_sample(image, generator):
    """Applying drawn parameters to a permuted batch permutes the result."""
    transform = RandomIntensity(**{**ALWAYS, "noise_p": 0.0})
    parameters = transform.draw(len(image), image.ndim - 2, generator)
    order = torch.tensor([2, 0, 3, 1])
    shuffled = type(parameters)(
        **{k: v[order] if isinstance(v, torch.Tensor) else v for k, v in vars(parameters).items()}
    )
    torch.testing.assert_close(
        transform.apply(image[order], shuffled), transform.apply(image, parameters)[order]
    )


def test_rates_are_the_probabilities(generator):
    drawn = RandomIntensity(gamma_p=0.3, blur_p=0.6).draw(5000, 3, generator)
    assert (drawn.gamma != 1).float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert (drawn.blur != 0).float().mean().item() == pytest.approx(0.6, abs=0.03)
    assert drawn.gamma.min() > 0.69
    assert drawn.gamma.max() < 1.51


def test_tone_curves(generator):
    monotone = random_tone_curve(200, generator, free=0.0, inverted=0.0)
    assert (monotone.diff(dim=1) >= 0).all()
    torch.testing.assert_close(monotone[:, 0], torch.zeros(200))
    torch.testing.assert_close(monotone[:, -1], torch.ones(200))
    falling = random_tone_curve(200, generator, free=0.0, inverted=1.0)
    assert (falling.diff(dim=1) <= 0).all()
    free = random_tone_curve(200, generator, free=1.0)
    torch.testing.assert_close(free.amin(dim=1), torch.zeros(200))
    torch.testing.assert_close(free.amax(dim=1), torch.ones(200))
    assert (free.diff(dim=1) < 0).any(dim=1).float().mean() > 0.8
    mixed = random_tone_curve(4000, generator, free=0.0, inverted=0.3)
    assert (mixed[:, 0] > mixed[:, -1]).float().mean().item() == pytest.approx(0.3, abs=0.03)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="window_jitter"):
        RandomIntensity(window_jitter=0.6)
    with pytest.raises(ValueError, match="tone_knots"):
        RandomIntensity(tone_knots=1)
    with pytest.raises(ValueError, match="gamma"):
        RandomIntensity(gamma_range=(0.0, 1.0))
