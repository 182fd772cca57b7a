"""The files that an operator deploys: each is well-formed, and they agree with each other."""

import json
import re
import shutil
import subprocess

import pytest
import tensorflow as tf
import yaml
from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from loopctr_tf.export.warmup import BATCH_SIZES
from loopctr_tf.scoring.server.warmup import FILE
from tests.serving.conftest import SIGNATURES
from tests.serving.kit import ROOT, blocks, compose_flags, flags, proto, yaml_documents
from tests.serving.messages import BatchingParameters, MonitoringConfig

BATCHING_FLAGS = "--enable_batching --batching_parameters_file=/config/batching.config"

_FLAGS = """
port grpc_socket_path rest_api_port rest_api_num_threads rest_api_timeout_in_ms
rest_api_enable_cors_support enable_batching allow_version_labels_for_unavailable_models
batching_parameters_file enable_per_model_batching_parameters model_config_file
model_config_file_poll_wait_seconds model_name model_base_path num_load_threads
num_unload_threads max_num_load_retries load_retry_interval_micros
file_system_poll_wait_seconds flush_filesystem_caches tensorflow_session_parallelism
tensorflow_session_config_file tensorflow_intra_op_parallelism tensorflow_inter_op_parallelism
use_alts_credentials ssl_config_file platform_config_file per_process_gpu_memory_fraction
saved_model_tags grpc_channel_arguments grpc_max_threads enable_model_warmup
num_request_iterations_for_warmup version monitoring_config_file
remove_unused_fields_from_bundle_metagraph prefer_tflite_model num_tflite_pools
num_tflite_interpreters_per_pool enable_signature_method_name_check xla_cpu_compilation_enabled
xla_gpu_compilation_enabled enable_profiler thread_pool_factory_config_file mixed_precision
skip_initialize_tpu enable_grpc_healthcheck_service enable_serialization_as_tensor_content
"""
KNOWN_FLAGS = frozenset(_FLAGS.split())
"""Flags of tensorflow_model_server; it prints an unknown one and goes on without it."""

SAMPLERS = {  # become NAME_bucket, NAME_sum and NAME_count
    ":tensorflow:serving:request_latency": {"model_name", "API", "entrypoint"},
    ":tensorflow:serving:runtime_latency": {"model_name", "API", "runtime"},
    ":tensorflow:serving:model_warmup_latency": {"model_path", "status"},
    ":tensorflow:serving:batching_session:queuing_latency": {"thread_pool_name"},
    ":tensorflow:serving:batching_session:input_batch_size": set(),
    ":tensorflow:serving:batching_session:processed_batch_size": set(),
    ":tensorflow:serving:batching_session:padding_size": {"execution_batch_size"},
}
SCALARS = {
    ":tensorflow:serving:request_count": {"model_name", "status"},
    ":tensorflow:cc:saved_model:load_attempt_count": {"model_path", "status"},
    ":tensorflow:cc:saved_model:load_latency": {"model_path"},
    ":tensorflow:core:graph_runs": set(),
    ":tensorflow:core:graph_run_time_usecs": set(),
}
"""Metrics that the server exports, with their labels."""


@pytest.fixture(scope="module")
def deployment() -> dict:
    (found,) = yaml_documents("kubernetes/deployment.yaml")
    return found


@pytest.fixture(scope="module")
def pod(deployment) -> dict:
    return deployment["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def container(pod) -> dict:
    (found,) = pod["containers"]
    return found


def _checked_models(text: str):
    """The one model of a ModelServerConfig whose labels all mean versions that it loads."""
    (model,) = text_format.Parse(text, ModelServerConfig()).model_config_list.config
    assert (model.name, model.model_platform) == ("loopctr", "tensorflow")
    assert model.base_path == "/models/loopctr"
    assert set(model.version_labels) == {"stable", "canary"}
    assert set(model.version_labels.values()) <= set(model.model_version_policy.specific.versions)
    return model


def test_the_shipped_model_config_serves_version_1_under_both_labels():
    model = _checked_models((ROOT / "models.config").read_text())
    assert list(model.model_version_policy.specific.versions) == [1]
    assert dict(model.version_labels) == {"stable": 1, "canary": 1}


def test_the_recipe_loads_a_version_before_it_moves_a_label():
    (step,) = blocks("README.md", "textproto")
    model = _checked_models(step)
    assert list(model.model_version_policy.specific.versions) == [1, 2]
    assert dict(model.version_labels) == {"stable": 1, "canary": 1}


def test_the_labels_of_the_recipe_are_valid_text_protos():
    text = (ROOT / "README.md").read_text()
    labels = re.findall(r"`(version_labels \{[^`]*\})`", text)
    assert len(labels) == 2
    for label in labels:
        config = f"model_config_list {{ config {{ {label} }} }}"
        (model,) = text_format.Parse(config, ModelServerConfig()).model_config_list.config
        assert set(model.version_labels.values()) == {2}


def test_the_warm_up_recipe_runs_as_it_stands(movie_export, tmp_path, monkeypatch):
    shutil.copytree(movie_export, tmp_path / "models/loopctr/1")
    monkeypatch.chdir(tmp_path)
    (script,) = blocks("README.md", "python")
    exec(compile(script, "README.md", "exec"), {})
    records = list(tf.data.TFRecordDataset(f"models/loopctr/1/{FILE}").as_numpy_iterator())
    assert len(records) == 2 * len(SIGNATURES)


def test_batching_sizes_agree_with_each_other_and_with_the_warm_up_file():
    batching = proto("batching.config", BatchingParameters)
    sizes = list(batching.allowed_batch_sizes)
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == batching.max_batch_size.value
    assert tuple(sizes) == BATCH_SIZES
    assert batching.pad_variable_length_inputs
    assert batching.num_batch_threads.value >= 1
    assert batching.max_enqueued_batches.value >= batching.num_batch_threads.value
    assert 0 < batching.batch_timeout_micros.value <= 10_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_batch_size: 8", BatchingParameters),  # a wrapper, not a number
        ("max_batch_sizes { value: 8 }", BatchingParameters),
        ("pad_variable_length_inputs: true pad_variable_length_inputs: true", BatchingParameters),
        ("prometheus_config { enabled: true }", MonitoringConfig),
    ],
)
def test_the_definitions_made_for_these_tests_are_strict(text, message):
    with pytest.raises(text_format.ParseError):
        text_format.Parse(text, message())


def test_metrics_are_on_and_scraped_where_they_are(container, deployment):
    config = proto("monitoring.config", MonitoringConfig).prometheus_config
    assert config.enable
    (prometheus,) = yaml_documents("prometheus.yml")
    (job,) = prometheus["scrape_configs"]
    assert job["metrics_path"] == config.path
    assert job["static_configs"] == [{"targets": [f"serving:{compose_flags()['rest_api_port']}"]}]
    annotations = deployment["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/path"] == config.path
    rest = next(p["containerPort"] for p in container["ports"] if p["name"] == "rest")
    assert annotations["prometheus.io/port"] == str(rest)


def test_compose_and_kubernetes_start_the_server_alike(container):
    assert flags(container["args"]) == compose_flags()
    (compose,) = yaml_documents("docker-compose.yml")
    service = compose["services"]["serving"]
    assert service["image"] == container["image"] == "tensorflow/serving:2.21.0"
    assert service["entrypoint"] == container["command"] == ["tensorflow_model_server"]


def test_flags_are_known_and_explained():
    used = set(compose_flags(BATCHING_FLAGS))
    assert used <= KNOWN_FLAGS
    readme = (ROOT / "README.md").read_text()
    named = set(re.findall(r"`--([a-z_]+)", readme)) - {"signatures", "bad", "init"}
    named -= {"json", "rate", "schema", "target", "repairs"}  # of `loopctr bench`
    assert named <= KNOWN_FLAGS
    obvious = {"port", "rest_api_port", "model_config_file", "monitoring_config_file"}
    warmup = {"enable_model_warmup"}  # has a section of its own
    batching = {"enable_batching", "batching_parameters_file"}
    assert used - obvious - warmup - batching <= named


def test_flags_that_harm_callers_are_not_in_the_kit(container):
    for used in (compose_flags(), flags(container["args"])):
        # REST answers zeros with status 200.
        assert "enable_serialization_as_tensor_content" not in used
        # One malformed request merged with good ones ends the server.
        assert "enable_batching" not in used
        # 4 x cores by default, so that the ninth concurrent call on two cores is refused.
        assert int(used["grpc_max_threads"]) >= 64
    kustomization = yaml.safe_load((ROOT / "kustomization.yaml").read_text())
    assert "patches" not in kustomization


def test_every_config_file_that_a_flag_names_is_in_the_kit_and_mounted(container):
    paths = [
        value for name, value in compose_flags(BATCHING_FLAGS).items() if name.endswith("_file")
    ]
    assert len(paths) == 3
    (kustomization,) = yaml_documents("kustomization.yaml")
    (generated,) = kustomization["configMapGenerator"]
    for path in paths:
        folder, _, name = path.rpartition("/")
        assert folder == "/config"
        assert (ROOT / name).is_file()
        assert name in generated["files"]
    (compose,) = yaml_documents("docker-compose.yml")
    assert "./:/config:ro" in compose["services"]["serving"]["volumes"]
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert set(mounts) == {"/config", "/models"}
    assert all("subPath" not in mount and mount["readOnly"] for mount in mounts.values())


def test_ports_are_the_same_everywhere(container):
    ports = {"grpc": 8500, "rest": 8501}
    assert compose_flags()["port"] == str(ports["grpc"])
    assert compose_flags()["rest_api_port"] == str(ports["rest"])
    assert {p["name"]: p["containerPort"] for p in container["ports"]} == ports
    (compose,) = yaml_documents("docker-compose.yml")
    assert compose["services"]["serving"]["ports"] == ["8500:8500", "8501:8501"]
    for service in yaml_documents("kubernetes/service.yaml"):
        for port in service["spec"]["ports"]:
            assert port["port"] == ports[port["targetPort"]]


def test_compose_mounts_files_that_exist_and_waits_for_the_model():
    (compose,) = yaml_documents("docker-compose.yml")
    for service in compose["services"].values():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert source.startswith("${MODELS_DIR") or (ROOT / source).exists(), volume
    serving = compose["services"]["serving"]
    assert "/v1/models/loopctr" in serving["healthcheck"]["test"][-1]
    assert serving["deploy"]["resources"]["limits"]["memory"]
    assert compose["services"]["prometheus"]["profiles"] == ["monitoring"]
    (source,) = yaml_documents("grafana/datasource.yml")
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
    (providers,) = yaml_documents("grafana/dashboards.yml")
    folder = providers["providers"][0]["options"]["path"]
    grafana = compose["services"]["grafana"]["volumes"]
    assert f"./grafana-dashboard.json:{folder}/loopctr.json:ro" in grafana


def test_a_rollout_never_has_too_few_pods(deployment, pod, container):
    strategy = deployment["spec"]["strategy"]
    assert strategy == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
    }
    assert "replicas" not in deployment["spec"], "the autoscaler's number would be set back"
    for probe in ("startupProbe", "readinessProbe"):
        assert container[probe]["httpGet"] == {"path": "/v1/models/loopctr", "port": "rest"}
    assert container["livenessProbe"]["tcpSocket"] == {"port": "grpc"}
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 300
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert container["lifecycle"]["preStop"]["exec"]["command"][0] == "sleep"
    longest_call = int(compose_flags()["rest_api_timeout_in_ms"]) / 1000
    assert pod["terminationGracePeriodSeconds"] >= pause + longest_call


def test_resources_are_limited_and_threads_are_as_many_as_cores(container):
    resources = container["resources"]
    assert set(resources["requests"]) == set(resources["limits"]) == {"cpu", "memory"}
    cores = resources["limits"]["cpu"]
    arguments = compose_flags()
    assert arguments["tensorflow_intra_op_parallelism"] == cores
    assert arguments["tensorflow_inter_op_parallelism"] == cores
    assert proto("batching.config", BatchingParameters).num_batch_threads.value == int(cores)
    (compose,) = yaml_documents("docker-compose.yml")
    assert compose["services"]["serving"]["deploy"]["resources"]["limits"]["cpus"] == cores


def test_kubernetes_objects_refer_to_each_other(deployment, pod):
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels == {"app": "loopctr"}
    services = yaml_documents("kubernetes/service.yaml")
    assert {s["metadata"]["name"] for s in services} == {"loopctr", "loopctr-headless"}
    assert all(service["spec"]["selector"] == labels for service in services)
    assert services[1]["spec"]["clusterIP"] == "None"
    (budget,) = yaml_documents("kubernetes/disruption-budget.yaml")
    assert budget["spec"]["selector"]["matchLabels"] == labels
    (claim,) = yaml_documents("kubernetes/models-claim.yaml")
    (kustomization,) = yaml_documents("kustomization.yaml")
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["models"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    (generated,) = kustomization["configMapGenerator"]
    assert volumes["config"]["configMap"]["name"] == generated["name"]
    assert kustomization["generatorOptions"]["disableNameSuffixHash"] is True


def test_the_autoscaler_scales_the_deployment(deployment):
    (scaler,) = yaml_documents("kubernetes/autoscaler.yaml")
    assert (scaler["apiVersion"], scaler["kind"]) == ("autoscaling/v2", "HorizontalPodAutoscaler")
    target = scaler["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])
    assert target["apiVersion"] == deployment["apiVersion"] == "apps/v1"
    assert 2 <= scaler["spec"]["minReplicas"] < scaler["spec"]["maxReplicas"]
    (metric,) = scaler["spec"]["metrics"]
    assert metric["resource"]["target"]["averageUtilization"] < 80


def test_every_manifest_is_listed_and_every_listed_file_exists():
    (kustomization,) = yaml_documents("kustomization.yaml")
    listed = set(kustomization["resources"])
    found = {f"kubernetes/{path.name}" for path in (ROOT / "kubernetes").iterdir()}
    assert found - listed == {"kubernetes/batching.patch.yaml"}
    assert listed <= found
    kinds = {document["kind"] for name in listed for document in yaml_documents(name)}
    assert kinds == {
        "Deployment",
        "Service",
        "HorizontalPodAutoscaler",
        "PodDisruptionBudget",
        "PersistentVolumeClaim",
    }


def _with_batching(kustomization: str) -> str:
    """The kustomization as it is once its last lines are no comments any more."""
    head, mark, patch = kustomization.partition("# patches:\n")
    assert mark
    return head + "patches:\n" + re.sub("^# ", "", patch, flags=re.MULTILINE)


def test_the_patch_turns_batching_on(container):
    kustomization = yaml.safe_load(_with_batching((ROOT / "kustomization.yaml").read_text()))
    (patch,) = kustomization["patches"]
    assert patch["target"] == {"kind": "Deployment", "name": "loopctr"}
    (operations,) = yaml_documents(patch["path"])
    place = "/spec/template/spec/containers/0/args/-"
    assert {(step["op"], step["path"]) for step in operations} == {("add", place)}
    added = [step["value"] for step in operations]
    assert flags(container["args"] + added) == compose_flags(BATCHING_FLAGS)


@pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="no kubectl to build the manifests with"
)
@pytest.mark.parametrize("batching", [False, True])
def test_kustomize_builds_the_manifests(tmp_path, batching):
    folder = shutil.copytree(ROOT, tmp_path / "serving")
    if batching:
        file = folder / "kustomization.yaml"
        file.write_text(_with_batching(file.read_text()))
    command = ["kubectl", "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    objects = {o["kind"]: o for o in yaml.safe_load_all(done.stdout) if o["kind"] != "Service"}
    config = objects["ConfigMap"]
    assert config["metadata"]["name"] == "loopctr-config"
    for name in ("models.config", "batching.config", "monitoring.config"):
        assert config["data"][name] == (ROOT / name).read_text()
    (container,) = objects["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert flags(container["args"]) == compose_flags(BATCHING_FLAGS if batching else "")


def _metrics(text: str) -> list[tuple[str, set[str]]]:
    """Metric names in a PromQL expression, each with the labels that are asked of it."""
    found = re.findall(r"(:tensorflow:[a-z0-9_:]+)(?:\{([^}]*)\})?", text)
    return [(name, set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", labels))) for name, labels in found]


def test_the_dashboard_asks_for_metrics_that_the_server_has():
    dashboard = json.loads((ROOT / "grafana-dashboard.json").read_text())
    asked = set()
    for panel in dashboard["panels"]:
        assert panel["title"]
        assert panel["description"]
        for target in panel["targets"]:
            metrics = _metrics(target["expr"])
            assert metrics, target
            for name, labels in metrics:
                base = re.sub("_(bucket|sum|count)$", "", name)
                known = SCALARS[name] if name in SCALARS else SAMPLERS[base]
                assert labels <= known, (name, labels)
                by = re.findall(r"sum by \(([^)]*)\)", target["expr"])
                grouped = {label.strip() for group in by for label in group.split(",")}
                assert grouped - {"le"} <= known
                assert ("le" in grouped) == ("histogram_quantile" in target["expr"])
                asked.add(name if name in SCALARS else base)
    assert asked == set(SCALARS) | set(SAMPLERS)


def test_dashboard_panels_have_ids_and_places_of_their_own():
    dashboard = json.loads((ROOT / "grafana-dashboard.json").read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken
        taken |= cells
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]+)\b", json.dumps(panels)))
    assert used <= variables


def test_metrics_that_the_readme_names_exist():
    text = (ROOT / "README.md").read_text()
    named = _metrics(text)
    assert len(named) >= 7
    for name, labels in named:
        assert labels <= {**SAMPLERS, **SCALARS}[name]


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.y*ml")), ids=lambda path: path.name)
def test_every_yaml_file_holds_mappings_or_steps(path):
    for document in yaml.safe_load_all(path.read_text()):
        assert isinstance(document, dict | list)
        assert document
