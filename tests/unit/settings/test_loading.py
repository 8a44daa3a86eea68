"""What `load` makes of an environment and a home folder."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies

from membridge.errors import SettingsError
from membridge.settings import DEFAULT, LogFormat, LogLevel, StoreKind, all_groups, load, locations
from membridge.settings.table import Setting, table_of
from schemas.identity import canonical_id
from schemas.leadership import Policy

TABLE = table_of(all_groups())


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home with 'quotes' and ünïcode"


def write_toml(home: Path, text: str | bytes) -> Path:
    return write(home / ".config" / "membridge" / "config.toml", text)


def write_legacy(home: Path, text: str | bytes) -> Path:
    return write(home / ".claude-mem-minio" / "config.env", text)


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(0o600)
    return path


def complaint(environ: dict[str, str], home: Path) -> str:
    """Return what `load` complains of, nothing when it is content."""
    try:
        load(environ, home)
    except SettingsError as error:
        return error.message
    return ""


def test_an_empty_environment_gives_the_defaults(home: Path) -> None:
    found = load({}, home)

    assert found.nats.urls == ("nats://127.0.0.1:4222",)
    assert found.store.backend is StoreKind.JETSTREAM
    assert found.lane.lock_ttl_seconds == 7200
    assert found.lane.stale_lock_grace_seconds == 60
    assert (found.backup.max_days, found.backup.max_count) == (14, 1_000)
    assert found.leadership.policy is Policy.MANUAL
    assert found.node.state_dir == home / ".local/state/membridge"
    assert found.node.config_dir == home / ".config/membridge"
    assert found.node.claude_mem_dir == home / ".claude-mem"
    assert [project.name for project in found.projects] == ["claude-mem"]
    assert found.projects[0].database == home / ".claude-mem/claude-mem.db"
    assert found.projects[0].id == canonical_id("claude-mem")
    assert set(found.origins.values()) == {DEFAULT}
    assert found.warnings == ()


def test_later_sources_win_and_each_value_names_its_source(home: Path) -> None:
    toml = write_toml(home, '[lane]\nquiet_seconds = 1\nchain_max_deltas = 2\n[store]\nbucket = "toml"\n')
    legacy = write_legacy(home, "MINIO_BUCKET=legacy\nMINIO_REGION=eu-west-1\nMEMBRIDGE_CHAIN_MAX_DELTAS=3\n")

    found = load({"MEMBRIDGE_CHAIN_MAX_DELTAS": "4"}, home)

    assert (found.lane.quiet_seconds, found.origins["lane.quiet_seconds"]) == (1.0, str(toml))
    assert (found.store.bucket, found.origins["store.bucket"]) == ("legacy", str(legacy))
    assert (found.store.region, found.origins["store.region"]) == ("eu-west-1", str(legacy))
    assert found.lane.chain_max_deltas == 4
    assert found.origins["lane.chain_max_deltas"] == "env MEMBRIDGE_CHAIN_MAX_DELTAS"
    assert found.origins["lane.auto_sync"] == DEFAULT


def test_an_empty_value_counts_as_not_set(home: Path) -> None:
    write_toml(home, '[store]\nbucket = "mine"\n')

    found = load({"MINIO_BUCKET": "", "MINIO_ENDPOINT": "", "CLAUDE_MEM_DB": ""}, home)

    assert found.store.bucket == "mine"
    assert found.store.endpoint is None


@pytest.mark.parametrize(
    ("written", "meant"),
    [("1", True), ("true", True), ("YES", True), ("on", True), ("0", False), ("False", False), ("no", False)],
)
def test_a_flag_has_several_spellings(home: Path, written: str, meant: bool) -> None:
    assert load({"MEMBRIDGE_AUTO_SYNC": written}, home).lane.auto_sync is meant


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MEMBRIDGE_AUTO_SYNC", "maybe"),
        ("MEMBRIDGE_QUIET_SECONDS", "0"),
        ("MEMBRIDGE_QUIET_SECONDS", "61"),
        ("MEMBRIDGE_QUIET_SECONDS", "nan"),
        ("MEMBRIDGE_QUIET_SECONDS", "5s\nand more"),
        ("MEMBRIDGE_CHAIN_MAX_DELTAS", "1.5"),
        ("MEMBRIDGE_NATS_REPLICAS", "2"),
        ("MEMBRIDGE_NATS_URL", "http://127.0.0.1:4222"),
        ("MEMBRIDGE_NATS_URL", "nats://host:99999"),
        ("MEMBRIDGE_NATS_URL", "nats://a,,nats://b"),
        ("MEMBRIDGE_STORE", "ftp"),
        ("MINIO_ENDPOINT", "nats://minio"),
        ("CLAUDE_MEM_DB", "relative/path.db"),
        ("CLAUDE_MEM_DB", "~other/path.db"),
        ("CLAUDE_MEM_DB", "/x\0y"),
        ("CLAUDE_PROJECT_ID", "x" * 257),
        ("MEMBRIDGE_NODE_ID", "a b"),
        ("MEMBRIDGE_NODE_ID", "*"),
        ("LEADERSHIP_LEASE_SECONDS", "2"),
        ("PULL_BACKUP_MAX_COUNT", "0"),
        ("MEMBRIDGE_CONFIG_DIR", "here"),
    ],
)
def test_a_wrong_value_is_one_line_with_key_value_and_what_is_allowed(home: Path, name: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({name: value}, home)

    message = caught.value.message
    assert message.startswith(f"{name} = ")
    assert ": must be " in message
    assert len(message.splitlines()) == 1
    assert caught.value.field == next(item.key for item in TABLE if item.declared.env == name)
    assert repr(value)[:60] in message


def test_a_wrong_value_in_the_file_names_its_key_and_the_file(home: Path) -> None:
    path = write_toml(home, "[lane]\nquiet_seconds = true\n")

    with pytest.raises(SettingsError) as caught:
        load({}, home)

    assert caught.value.message == (f"lane.quiet_seconds = True in {path}: must be a number above 0, at most 60")


def test_a_wrong_secret_is_not_shown(home: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load({"MINIO_SECRET_KEY": "hunter2\n3"}, home)

    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize(
    "address",
    [
        "nats://user:hunter2@host:99999",
        "user:hunter2@host:99999",
        "nats://u:a@hunter2@h:x",
        "nats://u:/hunter2,@h",
        "hunter2@",
    ],
)
def test_a_wrong_server_address_does_not_show_its_password(home: Path, address: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({"MEMBRIDGE_NATS_URL": address}, home)

    assert "hunter2" not in caught.value.message


def test_an_unknown_key_is_refused_with_a_near_match(home: Path) -> None:
    write_toml(home, "[lane]\nquiet_second = 3\n")

    with pytest.raises(SettingsError, match=r"lane\.quiet_second .* did you mean lane\.quiet_seconds\?"):
        load({}, home)


def test_an_unknown_group_is_refused(home: Path) -> None:
    write_toml(home, "[nope]\nx = 3\n")

    with pytest.raises(SettingsError, match=r"nope in .* is not a setting"):
        load({}, home)


def test_a_misspelt_variable_is_warned_of(home: Path) -> None:
    legacy = write_legacy(home, "MEMBRIDGE_AUTOSYNC=0\nRCLONE_REMOTE=x\n")
    found = load({"MEMBRIDGE_QUIET_SECOND": "3", "MEMBRIDGE_XYZZY_PLUGH": "1", "MEMBRIDGE_PRIMARY_NODE_ID": "a"}, home)

    assert found.warnings == (
        f"{legacy} line 1: MEMBRIDGE_AUTOSYNC is not a setting: did you mean MEMBRIDGE_AUTO_SYNC?",
        "MEMBRIDGE_PRIMARY_NODE_ID is not a setting: did you mean PRIMARY_NODE_ID?",
        "MEMBRIDGE_QUIET_SECOND is not a setting: did you mean MEMBRIDGE_QUIET_SECONDS?",
        "MEMBRIDGE_XYZZY_PLUGH is not a setting: `membridge config reference` lists the settings",
    )
    assert found.lane.quiet_seconds == load({}, home).lane.quiet_seconds


def test_secrets_are_masked_in_every_representation(home: Path) -> None:
    found = load(
        {
            "MINIO_ENDPOINT": "https://minio:9000",
            "MINIO_ACCESS_KEY": "access-hunter1",
            "MINIO_SECRET_KEY": "secret-hunter2",
            "MEMBRIDGE_NATS_URL": "nats://user:hunter3@host:4222,nats://token-hunter4@other:4222",
        },
        home,
    )

    assert "hunter" not in f"{found!r} {found.store} {found.nats} {found.store.secret_key!s}"
    assert found.store.secret_key is not None
    assert found.store.secret_key.reveal() == "secret-hunter2"
    assert found.secrets() == {"access-hunter1", "secret-hunter2", "hunter3", "token-hunter4"}


def test_an_endpoint_makes_the_store_s3_and_needs_both_keys(home: Path) -> None:
    environ = {"MINIO_ENDPOINT": "minio:9000", "MINIO_ACCESS_KEY": "a"}

    with pytest.raises(SettingsError, match="MINIO_SECRET_KEY is not set"):
        load(environ, home)
    found = load({**environ, "MINIO_SECRET_KEY": "s"}, home)

    assert found.store.backend is StoreKind.S3
    assert found.store.endpoint == "http://minio:9000"
    assert load({**environ, "MEMBRIDGE_STORE": "jetstream"}, home).store.backend is StoreKind.JETSTREAM


def test_paths_follow_the_home_and_the_variables_of_the_system(home: Path) -> None:
    environ = {
        "XDG_CONFIG_HOME": "/xdg/config",
        "XDG_STATE_HOME": "/xdg/state",
        "CLAUDE_MEM_DB": "~/my memory/it's.db",
    }

    found = load(environ, home)
    assert found.node.config_dir == Path("/xdg/config/membridge")
    assert found.node.state_dir == Path("/xdg/state/membridge")
    assert found.projects[0].database == home / "my memory/it's.db"
    assert found.node.claude_mem_dir == home / "my memory"

    found = load({**environ, "STATE_DIRECTORY": "/var/lib/membridge:/b", "MEMBRIDGE_CONFIG_DIR": "~/c"}, home)
    assert found.node.state_dir == Path("/var/lib/membridge")
    assert found.node.config_dir == home / "c"
    assert locations({"MEMBRIDGE_CONFIG_DIR": "~/c"}, home).config == home / "c" / "config.toml"


def test_the_data_folder_holds_the_database_unless_told_otherwise(home: Path) -> None:
    found = load({"CLAUDE_MEM_DATA_DIR": "/data/cm"}, home)
    assert found.projects[0].database == Path("/data/cm/claude-mem.db")

    found = load({"CLAUDE_MEM_DATA_DIR": "/data/cm", "CLAUDE_MEM_DB": "/else/x.db"}, home)
    assert (found.node.claude_mem_dir, found.projects[0].database) == (Path("/data/cm"), Path("/else/x.db"))


def test_a_host_name_with_dots_becomes_a_node_id(home: Path) -> None:
    found = load({"MEMBRIDGE_NODE_ID": "pi.local", "PRIMARY_NODE_ID": "pi.local"}, home)

    assert found.node.id == found.leadership.primary_node_id == "pi-local"


def test_dev_means_readable_debug_lines_unless_told_otherwise(home: Path) -> None:
    dev = load({"MEMBRIDGE_DEV": "1"}, home).node
    assert (dev.log_format, dev.log_level) == (LogFormat.TEXT, LogLevel.DEBUG)

    told = load({"MEMBRIDGE_DEV": "1", "MEMBRIDGE_LOG_LEVEL": "warning", "MEMBRIDGE_LOG_FORMAT": "json"}, home).node
    assert (told.log_format, told.log_level) == (LogFormat.JSON, LogLevel.WARNING)


def test_the_file_adds_projects(home: Path) -> None:
    write_toml(
        home, '[[projects]]\nname = "work"\ndatabase = "~/work.db"\n[[projects]]\nname = "play"\ndatabase="/p.db"'
    )

    found = load({"CLAUDE_PROJECT_ID": "main"}, home)

    assert [project.name for project in found.projects] == ["main", "work", "play"]
    assert found.projects[1].database == home / "work.db"
    assert found.projects[2].id == canonical_id("play")


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ('projects = "work"', "projects in"),
        ('[[projects]]\nname = "a"\ndatabase = "/a.db"\nfolders = "~/a"', r"projects\[0\].folders"),
        ('[[projects]]\nname = "a"\ndatabase = "/a.db"\nfolders = ["a"]', r"projects\[0\].folders"),
        ("[projects]\nname = 1", "projects in"),
        ('[[projects]]\nname = "work"', r"projects\[0\]\.database = None"),
        ('[[projects]]\nname = "work"\ndatabas = "/x"', r"did you mean projects\.database"),
        ('[[projects]]\nname = "claude-mem"\ndatabase = "/x"', "configured twice"),
    ],
)
def test_wrong_projects_are_refused(home: Path, text: str, pattern: str) -> None:
    write_toml(home, text)

    with pytest.raises(SettingsError, match=pattern):
        load({}, home)


def test_two_projects_on_one_database_are_refused_also_through_a_link(home: Path) -> None:
    database = write(home / "real.db", "")
    (home / "link.db").symlink_to(database)
    write_toml(home, '[[projects]]\nname = "work"\ndatabase = "~/link.db"')

    with pytest.raises(SettingsError, match="have the same database"):
        load({"CLAUDE_MEM_DB": str(database)}, home)


def test_quiet_times_must_fit_each_other(home: Path) -> None:
    with pytest.raises(SettingsError, match="quiet_max_seconds = 3: must be at least"):
        load({"MEMBRIDGE_QUIET_MAX_SECONDS": "3"}, home)


def test_a_secret_file_that_others_can_read_is_warned_of(home: Path) -> None:
    legacy = write_legacy(home, "MINIO_SECRET_KEY=s\n")
    toml = write_toml(home, '[store]\nbucket = "b"\n')
    seed = write(home / "seed", "SU")
    environ = {"MEMBRIDGE_NATS_NKEY_SEED_FILE": str(seed)}
    assert load(environ, home).warnings == ()

    for path in (legacy, toml, seed):
        path.chmod(0o644)

    assert load(environ, home).warnings == tuple(
        f"{path} holds a secret and others can read it: run `chmod 600 {path}`" for path in sorted((legacy, seed))
    )


def test_a_file_that_cannot_be_read_is_an_error(home: Path) -> None:
    (home / ".config/membridge/config.toml").mkdir(parents=True)

    with pytest.raises(SettingsError, match="cannot be read"):
        load({}, home)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    toml=strategies.binary(max_size=200)
    | strategies.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")),
    legacy=strategies.binary(max_size=200)
    | strategies.tuples(
        strategies.sampled_from([item.declared.env for item in TABLE]), strategies.binary(max_size=60)
    ).map(lambda pair: pair[0].encode() + b"=" + pair[1]),
    environ=strategies.dictionaries(
        strategies.sampled_from([item.declared.env for item in TABLE]), strategies.text(max_size=40), max_size=4
    ),
)
def test_arbitrary_bytes_end_in_settings_or_one_line(
    home: Path, toml: bytes, legacy: bytes, environ: dict[str, str]
) -> None:
    write_toml(home, toml)
    write_legacy(home, legacy)

    assert len(complaint(environ, home).splitlines()) <= 1


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    key=strategies.sampled_from([item for item in TABLE if item.declared.in_file]),
    value=strategies.one_of(
        strategies.booleans().map(lambda flag: str(flag).lower()),
        strategies.integers().map(str),
        strategies.floats().map(str),
        strategies.just("[1, 'x', {a = 2}]"),
        strategies.just("1979-05-27T07:32:00Z"),
        strategies.text(strategies.characters(exclude_characters="'", exclude_categories=["C"])).map(
            lambda t: f"'{t}'"
        ),
    ),
)
def test_any_value_of_any_type_ends_in_settings_or_one_line(home: Path, key: Setting, value: str) -> None:
    group, field = key.key.split(".")
    write_toml(home, f"[{group}]\n{field} = {value}\n")

    assert len(complaint({}, home).splitlines()) <= 1


def test_deeply_nested_toml_is_refused_in_one_line(home: Path) -> None:
    write_toml(home, "x = " + "[" * 20_000)

    with pytest.raises(SettingsError, match="is not valid TOML"):
        load({}, home)


def test_a_huge_file_is_refused(home: Path) -> None:
    write_toml(home, "#" * (1 << 21))

    with pytest.raises(SettingsError, match="is too large"):
        load({}, home)


def test_a_credential_of_systemd_is_a_file_or_its_text_and_the_environment_overrides_it(home: Path) -> None:
    folder = home / "credentials"
    seed = write(folder / "MEMBRIDGE_NATS_NKEY_SEED_FILE", "SU")
    # As an access list of systemd makes it look.
    seed.chmod(0o440)
    write(folder / "MINIO_SECRET_KEY", "swordfish\n")
    write(folder / "MINIO_BUCKET", "from-credential")
    write(folder / "PATH", "no setting")
    write_toml(home, "[store]\nsecret_key = 'of the file'\n")
    environ = {"CREDENTIALS_DIRECTORY": str(folder), "MINIO_BUCKET": "from-environment"}

    found = load(environ, home)

    assert found.nats.nkey_seed_file == seed
    assert found.warnings == ()
    assert found.store.secret_key is not None
    assert found.store.secret_key.reveal() == "swordfish"
    assert "swordfish" in found.secrets()
    assert found.store.bucket == "from-environment"
    assert found.origins["store.secret_key"] == "credential MINIO_SECRET_KEY"
    assert found.unset("store.secret_key") == "remove LoadCredential=MINIO_SECRET_KEY from the unit"


def test_credentials_that_are_not_there_or_wrong_are_as_any_other_value(home: Path) -> None:
    assert load({"CREDENTIALS_DIRECTORY": str(home / "none")}, home).nats.nkey_seed_file is None

    write(home / "credentials" / "MEMBRIDGE_NATS_REPLICAS", "two")

    said = complaint({"CREDENTIALS_DIRECTORY": str(home / "credentials")}, home)
    assert said.startswith("MEMBRIDGE_NATS_REPLICAS = 'two' in credential MEMBRIDGE_NATS_REPLICAS: must be")
