"""The networks of examples/networks: sizes and laws without data, figures of the data folder's READMEs with it."""

import json
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional
from torch.testing import assert_close

NETWORKS = Path(__file__).resolve().parents[2] / "examples" / "networks"

# File, arguments of `build`, stored file, stored numbers, shape of an input of three examples, shape of the output.
# The sizes are those of the data folder's json files.
CASES = [
    ("cifar10_resnet", {"depth": 20}, "cifar10_resnet_a/resnet20", 269_722, (3, 3, 32, 32), (3, 10)),
    ("cifar10_resnet", {"depth": 32}, "cifar10_resnet_a/resnet32", 464_154, (3, 3, 32, 32), (3, 10)),
    ("cifar10_lenet", {}, "cifar10_lenet/model", 62_006, (3, 3, 32, 32), (3, 10)),
    ("mnist_lenet5", {}, "mnist_lenet5/model", 61_706, (3, 1, 28, 28), (3, 10)),
    ("tiny_vgg", {}, "tiny_vgg/model", 19_920, (3, 3, 64, 64), (3, 10)),
    ("gpt_nano_sort", {}, "gpt_nano_sort/model", 85_728, 3, (3, 11, 3)),
    ("llama_stories260k", {}, "llama_stories260k/model", 260_032, 512, (3, 11, 512)),
    ("silero_vad", {}, "silero_vad_lstm/model", 309_633, (3, 1024), (3, 2)),
    ("imagenet_squeezenet", {}, "imagenet_squeezenet_dc/model", 1_248_424, (3, 3, 227, 227), (3, 1000)),
    ("pilotnet", {}, "pilotnet/model", 252_219, (3, 3, 66, 200), (3, 1)),
    ("keyword_spotting", {"name": "DNN_S"}, "keyword_spotting/DNN_S", 79_644, (3, 25, 10), (3, 12)),
    ("keyword_spotting", {"name": "DNN_M"}, "keyword_spotting/DNN_M", 198_924, (3, 25, 10), (3, 12)),
    ("keyword_spotting", {"name": "DNN_L"}, "keyword_spotting/DNN_L", 495_744, (3, 25, 10), (3, 12)),
    ("keyword_spotting", {"name": "GRU_S"}, "keyword_spotting/GRU_S", 78_090, (3, 25, 10), (3, 12)),
    ("control_policies", {"task": "Acrobot-v1"}, "control_policies/ppo_Acrobot-v1", 9_476, (3, 6), (3, 3)),
    ("control_policies", {"task": "CartPole-v1"}, "control_policies/ppo_CartPole-v1", 9_155, (3, 4), (3, 2)),
    ("control_policies", {"task": "LunarLander-v2"}, "control_policies/ppo_LunarLander-v2", 9_797, (3, 8), (3, 4)),
    ("control_policies", {"task": "MountainCar-v0"}, "control_policies/ppo_MountainCar-v0", 8_964, (3, 2), (3, 3)),
    ("control_policies", {"task": "Pendulum-v1"}, "control_policies/ppo_Pendulum-v1", 9_026, (3, 3), (3, 1)),
]
every_network = pytest.mark.parametrize("case", CASES, ids=lambda case: case[2])


@cache
def load(name):
    """A file of examples/networks, loaded by path as the command line does."""
    spec = spec_from_file_location(name, NETWORKS / f"{name}.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def example(shape):
    """Noise of a shape, or tokens of a vocabulary."""
    if isinstance(shape, int):
        return torch.randint(shape, (3, 11), generator=seeded())
    return torch.randn(shape, generator=seeded())


@torch.no_grad()
def score(model, split):
    """Right answers and mean cross-entropy."""
    inputs, labels = split
    out = torch.cat([model(batch) for batch in inputs.split(500)])
    return int((out.argmax(1) == labels).sum()), functional.cross_entropy(out, labels).item()


# ---- without the data folder


@every_network
@torch.no_grad()
def test_a_fresh_network_has_the_stored_size_and_runs_in_evaluation_mode(case):
    name, arguments, _, size, inputs, outputs = case
    before = torch.get_rng_state()
    model = load(name).build(weights=False, **arguments)
    again = load(name).build(weights=False, **arguments)
    assert torch.equal(torch.get_rng_state(), before), "the global generator was used"
    assert not model.training
    statistics = sum(buffer.numel() for key, buffer in model.named_buffers() if "num_batches" not in key)
    assert sum(param.numel() for param in model.parameters()) == size
    assert statistics == (0 if name != "cifar10_resnet" else 2 * sum(stored_norms(model)))
    out = model(example(inputs))
    assert out.shape == outputs
    assert out.isfinite().all()
    assert torch.equal(out, again(example(inputs)))


def stored_norms(model):
    return [norm.num_features for norm in model.modules() if isinstance(norm, torch.nn.BatchNorm2d)]


def test_shortcut_a_takes_every_second_pixel_and_pads_with_zero_channels():
    block = load("cifar10_resnet").Block(4, 8, stride=2).eval()
    torch.nn.init.zeros_(block.conv2.weight)  # what is left of the block is relu(shortcut)
    x = torch.randn(2, 4, 6, 6, generator=seeded())
    out = block(x)
    assert_close(out[:, 2:6], x[:, :, ::2, ::2].relu())
    assert out[:, :2].count_nonzero() == out[:, 6:].count_nonzero() == 0


@pytest.mark.parametrize("name", ["gpt_nano_sort", "llama_stories260k"])
@torch.no_grad()
def test_a_language_model_never_looks_ahead(name):
    model = load(name).build(weights=False)
    tokens = torch.randint(3, (4, 11), generator=seeded())
    changed = tokens.clone()
    changed[:, 7:] = (changed[:, 7:] + 1) % 3
    same, other = model(tokens), model(changed)
    assert_close(same[:, :7], other[:, :7])
    assert (same[:, 7:] - other[:, 7:]).abs().amax(-1).min() > 1e-4


def test_rotary_products_depend_on_the_distance_only():
    rotate = load("llama_stories260k").rotate
    query, key = torch.randn(2, 8, generator=seeded(), dtype=torch.float64)
    queries, keys = (rotate(vector.expand(1, 12, 1, 8))[0, :, 0] for vector in (query, key))
    assert_close(queries.norm(dim=1), query.norm().expand(12))
    products = queries @ keys.T
    for distance in range(-11, 12):
        along = products.diagonal(distance)
        assert_close(along, along[:1].expand_as(along))
    assert products[0].std() > 1e-3


def test_labels_of_the_sorting_task_are_the_sorted_rows():
    tokens, labels = load("gpt_nano_sort").data()["test"]
    assert tokens.shape == labels.shape == (729, 11)
    assert len(tokens[:, :6].unique(dim=0)) == 729
    assert (labels[:, :5] == -100).all()
    assert torch.equal(labels[:, 5:], tokens[:, :6].sort(dim=1).values)
    assert torch.equal(labels[:, 5:10], tokens[:, 6:])


def test_grey_has_no_colour_difference():
    grey = torch.arange(256.0).expand(3, 1, 256)
    luma, *differences = load("pilotnet").yuv(grey)
    assert torch.equal(luma, grey[0])
    assert all((difference == 128).all() for difference in differences)


def test_a_mirrored_cart_falls_the_mirrored_way():
    push = load("control_policies").push
    states = torch.randn(50, 4, generator=seeded(), dtype=torch.float64)
    right = torch.rand(50, generator=seeded(1)) < 0.5
    assert_close(push(-states, ~right), -push(states, right))


@torch.no_grad()
def test_silero_hears_the_same_in_one_go_and_frame_by_frame():
    silero = load("silero_vad")
    model, audio, state = silero.build(weights=False), silero.data(n=3)["test"][:, : 6 * silero.FRAME], None
    padded = functional.pad(audio, (silero.CONTEXT, 0))
    for place, whole in enumerate(model(audio).unbind(1)):
        start = place * silero.FRAME
        speech, state = model.step(padded[:, start : start + silero.FRAME + silero.CONTEXT], state)
        assert_close(speech, whole)


def test_a_missing_data_folder_is_told_in_one_sentence(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="Set STRATOSCOPE_DATA"):
        load("tiny_vgg").build(tmp_path)
    monkeypatch.setenv("STRATOSCOPE_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        load("tiny_vgg").build()


# ---- with the data folder


@every_network
@torch.no_grad()
def test_every_stored_number_is_in_the_network(case, data_folder):
    name, arguments, file, size, inputs, outputs = case
    model = load(name).build(data_folder, **arguments)
    stored = load_file(data_folder / f"{file}.safetensors")
    if name == "keyword_spotting":
        stored = {load(name).NAMES[key]: tensor.T if tensor.ndim == 2 else tensor for key, tensor in stored.items()}
    held = {key: tensor for key, tensor in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    assert held.keys() == stored.keys()
    assert all(torch.equal(held[key], stored[key]) for key in held)
    described = data_folder / f"{file}.json"
    if described.exists():
        assert json.loads(described.read_text()).get("parameters", size) == size
    out = model(example(inputs))
    assert out.shape == outputs
    assert out.isfinite().all()


def test_a_stored_tensor_too_few_is_refused(data_folder, tmp_path):
    from safetensors.torch import save_file

    stored = load_file(data_folder / "mnist_lenet5" / "model.safetensors")
    del stored["fc2.bias"]
    (tmp_path / "mnist_lenet5").mkdir()
    save_file(stored, tmp_path / "mnist_lenet5" / "model.safetensors")
    with pytest.raises(RuntimeError, match=r"fc2\.bias"):
        load("mnist_lenet5").build(tmp_path)


@pytest.mark.parametrize("name", sorted({case[0] for case in CASES}))
@torch.no_grad()
def test_build_and_data_work_without_an_argument(name, data_folder, monkeypatch):
    monkeypatch.setenv("STRATOSCOPE_DATA", str(data_folder))
    module = load(name)
    made = (module.noise if name == "keyword_spotting" else module.data)()
    assert set(made) <= {"train", "test"}
    (split,) = made.values()
    inputs, labels = split if isinstance(split, tuple) else (split, None)
    assert labels is None or len(labels) == len(inputs)
    assert len(module.build()(inputs[:2])) == 2


def test_resnet20_knows_its_training_images(data_folder):
    resnet = load("cifar10_resnet")
    right, _ = score(resnet.build(data_folder), resnet.data(data_folder, n=200)["train"])
    assert right >= 199  # 1,997 of 2,000 over all


@pytest.mark.slow
@pytest.mark.parametrize(
    ("depth", "train", "loss", "jpeg"), [(20, 0.9985, 0.0075, 0.809), (32, 1.0, 0.0015, 0.830)], ids=["20", "32"]
)
def test_resnet_reaches_the_figures_of_its_readme(depth, train, loss, jpeg, data_folder):
    resnet = load("cifar10_resnet")
    model = resnet.build(data_folder, depth=depth)
    right, entropy = score(model, resnet.data(data_folder)["train"])
    assert right == round(2000 * train)
    assert entropy == pytest.approx(loss, abs=5e-5)
    right, _ = score(model, resnet.data_jpeg(data_folder)["test"])
    assert right / 2000 == pytest.approx(jpeg, abs=1e-3)


def test_cifar10_lenet_reaches_the_figures_of_its_readme(data_folder):
    lenet = load("cifar10_lenet")
    model = lenet.build(data_folder)
    assert score(model, lenet.data(data_folder, n=2000)["train"])[0] / 2000 == pytest.approx(0.657, abs=1e-3)
    assert score(model, lenet.data_jpeg(data_folder)["test"])[0] / 2000 == pytest.approx(0.570, abs=1e-3)


def test_mnist_lenet5_reaches_the_figures_of_its_readme(data_folder):
    lenet = load("mnist_lenet5")
    model = lenet.build(data_folder)
    right, loss = score(model, lenet.data(data_folder)["test"])
    assert right == 9764
    assert loss == pytest.approx(0.0774, abs=5e-5)
    digit = torch.tensor(json.loads((data_folder / "mnist_lenet5" / "samples" / "helloworld_5.json").read_text()))
    assert model(digit.float().view(1, 1, 28, 28) / max(1.0, float(digit.max()))).argmax() == 5


def test_tiny_vgg_names_fourteen_of_twenty_pictures(data_folder):
    vgg = load("tiny_vgg")
    split = vgg.data(data_folder)["test"]
    assert len(split[1]) == 20
    assert score(vgg.build(data_folder), split)[0] == 14


def test_gpt_nano_sorts_every_row_there_is(data_folder):
    gpt = load("gpt_nano_sort")
    rows = gpt.data()["test"][0][:, :6]
    assert torch.equal(gpt.sort(gpt.build(data_folder), rows), rows.sort(dim=1).values)
    assert not torch.equal(gpt.sort(gpt.build(weights=False), rows), rows.sort(dim=1).values)


STORY = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."


def test_llama_tells_the_story_of_its_readme(data_folder):
    llama = load("llama_stories260k")
    pieces = llama.vocabulary(data_folder)
    tokens = llama.continue_greedily(llama.build(data_folder), [llama.BEGIN], 48)
    assert llama.decode(tokens, pieces).startswith(STORY)
    encoded = llama.encode(STORY, pieces)
    assert encoded == tokens[: len(encoded)]


@pytest.mark.parametrize("text", ["", "a", STORY, 'She said, "a café…"\n', "5 € = 中 \U0001f600"])
def test_llama_text_survives_its_tokens(text, data_folder):
    llama = load("llama_stories260k")
    pieces = llama.vocabulary(data_folder)
    tokens = llama.encode(text, pieces)
    assert tokens[0] == llama.BEGIN
    assert llama.decode(tokens, pieces) == text


@torch.no_grad()
def test_llama_reads_shakespeare_better_than_guessing(data_folder):
    llama = load("llama_stories260k")
    tokens, labels = llama.data(data_folder)["test"]
    assert torch.equal(tokens[:, 1:], labels[:, :-1])
    loss = functional.cross_entropy(llama.build(data_folder)(tokens).flatten(0, 1), labels.flatten())
    assert loss < torch.tensor(512.0).log() - 1


def test_silero_transforms_by_hann_windowed_cosines_and_sines(data_folder):
    stored = load("silero_vad").build(data_folder).stft_conv.weight[:, 0].double()
    angle = 2 * torch.pi * torch.outer(torch.arange(129.0).double(), torch.arange(256.0).double()) / 256
    window = torch.hann_window(256, dtype=torch.float64)
    assert_close(stored, torch.cat([angle.cos() * window, -angle.sin() * window]), atol=1e-6, rtol=0)


@torch.no_grad()
def test_silero_hears_speech_in_a_vowel_and_none_in_silence_noise_or_a_tone(data_folder):
    silero = load("silero_vad")
    model = silero.build(data_folder)
    time = torch.arange(silero.RATE) / silero.RATE
    others = torch.stack(
        [0 * time, 0.3 * torch.sin(880 * torch.pi * time), 0.1 * torch.randn(16000, generator=seeded())]
    )
    assert model(others).max() < 0.15
    assert model(silero.vowel()[None]).median() > 0.5


@torch.no_grad()
def test_squeezenet_sees_what_its_readme_says(data_folder):
    from PIL import Image

    squeezenet = load("imagenet_squeezenet")
    model = squeezenet.build(data_folder)
    expected = {
        "chelsea.png": (285, 0.58),
        "coffee.png": (967, 0.98),
        "camera.png": (872, 1.00),
        "rocket.jpg": (733, 0.73),
    }
    for name, (label, share) in expected.items():
        with Image.open(data_folder / "photos" / name) as photo:
            found = model(squeezenet.prepare(photo)[None]).softmax(1)[0]
        assert int(found.argmax()) == label, name
        assert float(found[label]) == pytest.approx(share, abs=0.01), name
    pictures, labels = squeezenet.data(data_folder)["test"]
    assert torch.equal(model(pictures).argmax(1), labels)


def test_squeezenet_is_pruned_and_quantised(data_folder):
    weights = [param for param in load("imagenet_squeezenet").build(data_folder).parameters() if param.ndim == 4]
    assert max(len(weight.unique()) for weight in weights) <= 256
    density = sum(int(weight.count_nonzero()) for weight in weights) / sum(weight.numel() for weight in weights)
    # model.json states 0.3392, which cannot be a share of weights that differ from zero: of those there are fewer.
    assert density == pytest.approx(0.3342, abs=1e-4)


@torch.no_grad()
def test_pilotnet_agrees_with_another_driver_as_little_as_its_readme_says(data_folder):
    pilotnet = load("pilotnet")
    frames, angles = pilotnet.data(data_folder)["test"]
    steered = pilotnet.build(data_folder)(frames)
    assert len(frames) == 63
    assert float(torch.corrcoef(torch.cat([steered, angles], dim=1).T)[0, 1]) == pytest.approx(0.27, abs=0.005)


@pytest.mark.parametrize("name", ["DNN_S", "DNN_M", "DNN_L"])
@torch.no_grad()
def test_keyword_mlp_equals_its_stored_products(name, data_folder):
    keyword = load("keyword_spotting")
    stored = load_file(data_folder / "keyword_spotting" / f"{name}.safetensors")
    features = keyword.noise(n=8)["test"]
    x = features.reshape(8, 250)
    for layer in ("fc1", "fc2", "fc3"):
        x = (x @ stored[f"{layer}/W"] + stored[f"{layer}/b"]).clamp(min=0)
    naive = x @ stored["final_fc"] + stored["Variable"]
    assert_close(keyword.build(data_folder, name)(features), naive)


@torch.no_grad()
def test_keyword_gru_equals_the_stored_graph_step_by_step(data_folder):
    keyword = load("keyword_spotting")
    stored = load_file(data_folder / "keyword_spotting" / "GRU_S.safetensors")
    gates, gates_bias, fresh, fresh_bias = (
        stored[f"{keyword.CELL}/{part}"]
        for part in ("gates/kernel", "gates/bias", "candidate/kernel", "candidate/bias")
    )
    features = keyword.noise(n=1)["test"]
    state = torch.zeros(154)
    for frame in features[0]:
        both = torch.sigmoid(torch.cat([frame, state]) @ gates + gates_bias)
        reset, update = both[:154], both[154:]  # the order of the graph's split
        candidate = torch.tanh(torch.cat([frame, reset * state]) @ fresh + fresh_bias)
        state = update * state + (1 - update) * candidate
    assert_close(keyword.build_gru(data_folder)(features)[0], state @ stored["W_o"] + stored["b_o"])


def test_the_cartpole_policy_balances_and_a_fresh_one_does_not(data_folder):
    control = load("control_policies")
    assert control.balance(control.build(data_folder))[1].min() == 500
    assert control.balance(control.build(weights=False))[1].max() < 100


@torch.no_grad()
def test_every_policy_gives_finite_values(data_folder):
    control = load("control_policies")
    for task, (inputs, _, _) in control.TASKS.items():
        assert control.build(data_folder, task).value(example((3, inputs))).isfinite().all(), task
