CREATE TABLE public.alembic_version (
    version_num character varying(32) NOT NULL
);
CREATE TABLE public.artifacts (
    seq integer NOT NULL,
    id character varying(36) NOT NULL,
    task_id character varying(36) NOT NULL,
    job_id character varying(36) NOT NULL,
    type character varying(32) NOT NULL,
    created_at character varying(32) NOT NULL,
    entity_refs text NOT NULL,
    tags text NOT NULL,
    content text,
    object_key character varying(256)
);
CREATE SEQUENCE public.artifacts_seq_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.artifacts_seq_seq OWNED BY public.artifacts.seq;
CREATE TABLE public.audit (
    id integer NOT NULL,
    "timestamp" character varying(32) NOT NULL,
    action character varying(32) NOT NULL,
    entity_type character varying(16) NOT NULL,
    entity_id character varying(64) NOT NULL,
    actor character varying(200) NOT NULL,
    detail text NOT NULL
);
CREATE SEQUENCE public.audit_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.audit_id_seq OWNED BY public.audit.id;
CREATE TABLE public.leases (
    id character varying(36) NOT NULL,
    task_id character varying(36) NOT NULL,
    worker_id character varying(64) NOT NULL,
    context_id character varying(200) NOT NULL,
    started_at character varying(32) NOT NULL,
    expires_at character varying(32) NOT NULL,
    ttl_seconds integer NOT NULL,
    status character varying(16) NOT NULL,
    last_heartbeat character varying(32) NOT NULL
);
CREATE TABLE public.results (
    seq integer NOT NULL,
    id character varying(36) NOT NULL,
    task_id character varying(36) NOT NULL,
    worker_id character varying(64) NOT NULL,
    artifact_id character varying(36),
    status character varying(16) NOT NULL,
    output text,
    error_message text,
    duration_ms integer NOT NULL,
    tokens_used integer,
    completed_at character varying(32) NOT NULL,
    lease_id character varying(36)
);
CREATE SEQUENCE public.results_seq_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.results_seq_seq OWNED BY public.results.seq;
CREATE TABLE public.scheduling (
    name character varying(16) NOT NULL,
    epoch integer NOT NULL
);
CREATE TABLE public.tasks (
    seq integer NOT NULL,
    id character varying(36) NOT NULL,
    context_id character varying(200) NOT NULL,
    agent_slug character varying(200) NOT NULL,
    prompt text NOT NULL,
    context_hints text NOT NULL,
    timeout_sec integer NOT NULL,
    budget integer NOT NULL,
    desired_format character varying(8) NOT NULL,
    max_attempts integer NOT NULL,
    priority integer NOT NULL,
    idempotency_key character varying(128),
    labels text NOT NULL,
    created_at character varying(32) NOT NULL,
    status character varying(16) NOT NULL,
    updated_at character varying(32) NOT NULL,
    not_before double precision NOT NULL,
    lease_id character varying(36),
    worker_id character varying(64),
    attempts integer NOT NULL,
    interruptions integer NOT NULL,
    reason text NOT NULL
);
CREATE SEQUENCE public.tasks_seq_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.tasks_seq_seq OWNED BY public.tasks.seq;
CREATE TABLE public.workers (
    id character varying(64) NOT NULL,
    registered_at character varying(32) NOT NULL,
    drained integer NOT NULL
);
ALTER TABLE ONLY public.artifacts ALTER COLUMN seq SET DEFAULT nextval('public.artifacts_seq_seq'::regclass);
ALTER TABLE ONLY public.audit ALTER COLUMN id SET DEFAULT nextval('public.audit_id_seq'::regclass);
ALTER TABLE ONLY public.results ALTER COLUMN seq SET DEFAULT nextval('public.results_seq_seq'::regclass);
ALTER TABLE ONLY public.tasks ALTER COLUMN seq SET DEFAULT nextval('public.tasks_seq_seq'::regclass);
INSERT INTO public.alembic_version VALUES ('0002');
INSERT INTO public.artifacts VALUES (1, '0ee35e7e-f751-5baf-a493-bad864fc57cf', '83a36694-778c-48e8-98dd-86e5b105e93f', '820d8141-49a5-4796-9e53-8a4bd570b2d9', 'LLM_RESULT', '2026-11-28T11:44:05.809+00:00', '[]', '[]', 'an answer', NULL);
INSERT INTO public.audit VALUES (1, '2026-11-28T11:44:05.541+00:00', 'registered', 'worker', 'w1', 'w1', '');
INSERT INTO public.audit VALUES (2, '2026-11-28T11:44:05.541+00:00', 'registered', 'worker', 'w2', 'w2', '');
INSERT INTO public.audit VALUES (3, '2026-11-28T11:44:05.554+00:00', 'submitted', 'task', '83a36694-778c-48e8-98dd-86e5b105e93f', 'alice@laptop', '');
INSERT INTO public.audit VALUES (4, '2026-11-28T11:44:05.555+00:00', 'leased', 'task', '83a36694-778c-48e8-98dd-86e5b105e93f', 'coordinator', 'w2: initialize, fewest tasks');
INSERT INTO public.audit VALUES (5, '2026-11-28T11:44:05.598+00:00', 'started', 'task', '83a36694-778c-48e8-98dd-86e5b105e93f', 'w2', '');
INSERT INTO public.audit VALUES (6, '2026-11-28T11:44:05.809+00:00', 'completed', 'task', '83a36694-778c-48e8-98dd-86e5b105e93f', 'w2', '');
INSERT INTO public.audit VALUES (7, '2026-11-28T11:44:05.846+00:00', 'submitted', 'task', '39279124-0656-4263-a104-07b82f65a962', 'alice@laptop', '');
INSERT INTO public.audit VALUES (8, '2026-11-28T11:44:05.847+00:00', 'leased', 'task', '39279124-0656-4263-a104-07b82f65a962', 'coordinator', 'w2: retain, it knows this context');
INSERT INTO public.audit VALUES (9, '2026-11-28T11:44:05.854+00:00', 'started', 'task', '39279124-0656-4263-a104-07b82f65a962', 'w2', '');
INSERT INTO public.audit VALUES (10, '2026-11-28T11:44:06.065+00:00', 'submitted', 'task', '190b4f39-5ba5-42c4-9c30-228de6ed7b82', 'alice@laptop', '');
INSERT INTO public.audit VALUES (11, '2026-11-28T11:44:06.068+00:00', 'submitted', 'task', 'b22a7221-18e3-4fd0-ab35-07a29f58218b', 'alice@laptop', '');
INSERT INTO public.audit VALUES (12, '2026-11-28T11:44:06.077+00:00', 'drained', 'worker', 'w2', 'alice@laptop', '');
INSERT INTO public.leases VALUES ('820d8141-49a5-4796-9e53-8a4bd570b2d9', '83a36694-778c-48e8-98dd-86e5b105e93f', 'w2', 'blog', '2026-11-28T11:44:05.555+00:00', '2026-11-28T11:49:05.555+00:00', 300, 'released', '2026-11-28T11:44:05.809+00:00');
INSERT INTO public.leases VALUES ('cfff804f-0f70-4dae-847d-dd9e54c68f22', '39279124-0656-4263-a104-07b82f65a962', 'w2', 'blog', '2026-11-28T11:44:05.847+00:00', '2026-11-28T11:49:05.847+00:00', 300, 'active', '2026-11-28T11:44:05.847+00:00');
INSERT INTO public.results VALUES (1, 'c87cf0b8-f42d-4037-a4d4-57ec3f7e059d', '83a36694-778c-48e8-98dd-86e5b105e93f', 'w2', '0ee35e7e-f751-5baf-a493-bad864fc57cf', 'success', 'an answer', NULL, 7, 12, '2026-11-28T11:44:05.809+00:00', '820d8141-49a5-4796-9e53-8a4bd570b2d9');
INSERT INTO public.scheduling VALUES ('tasks', 1);
INSERT INTO public.tasks VALUES (1, '83a36694-778c-48e8-98dd-86e5b105e93f', 'blog', 'writer', 'said before the move', '[]', 120, 0, 'text', 3, 5, 'k1', '[]', '2026-11-28T11:44:05.554+00:00', 'completed', '2026-11-28T11:44:05.809+00:00', 0, '820d8141-49a5-4796-9e53-8a4bd570b2d9', 'w2', 1, 0, '');
INSERT INTO public.tasks VALUES (2, '39279124-0656-4263-a104-07b82f65a962', 'blog', 'writer', 'runs while the coordinator is replaced', '[]', 120, 0, 'text', 3, 5, NULL, '[]', '2026-11-28T11:44:05.846+00:00', 'running', '2026-11-28T11:44:05.854+00:00', 0, 'cfff804f-0f70-4dae-847d-dd9e54c68f22', 'w2', 1, 0, '');
INSERT INTO public.tasks VALUES (3, '190b4f39-5ba5-42c4-9c30-228de6ed7b82', 'blog', 'writer', 'waits behind it', '[]', 120, 0, 'text', 3, 7, NULL, '[]', '2026-11-28T11:44:06.065+00:00', 'queued', '2026-11-28T11:44:06.065+00:00', 0, NULL, NULL, 0, 0, '');
INSERT INTO public.tasks VALUES (4, 'b22a7221-18e3-4fd0-ab35-07a29f58218b', 'gpu', 'writer', 'waits for a label', '[]', 120, 0, 'text', 3, 5, NULL, '["gpu"]', '2026-11-28T11:44:06.068+00:00', 'queued', '2026-11-28T11:44:06.068+00:00', 0, NULL, NULL, 0, 0, '');
INSERT INTO public.workers VALUES ('w1', '2026-11-28T11:44:05.541+00:00', 0);
INSERT INTO public.workers VALUES ('w2', '2026-11-28T11:44:05.541+00:00', 1);
SELECT pg_catalog.setval('public.artifacts_seq_seq', 1, true);
SELECT pg_catalog.setval('public.audit_id_seq', 12, true);
SELECT pg_catalog.setval('public.results_seq_seq', 1, true);
SELECT pg_catalog.setval('public.tasks_seq_seq', 4, true);
ALTER TABLE ONLY public.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY public.artifacts
    ADD CONSTRAINT artifacts_id_key UNIQUE (id);
ALTER TABLE ONLY public.artifacts
    ADD CONSTRAINT artifacts_pkey PRIMARY KEY (seq);
ALTER TABLE ONLY public.audit
    ADD CONSTRAINT audit_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.leases
    ADD CONSTRAINT leases_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.results
    ADD CONSTRAINT results_id_key UNIQUE (id);
ALTER TABLE ONLY public.results
    ADD CONSTRAINT results_pkey PRIMARY KEY (seq);
ALTER TABLE ONLY public.scheduling
    ADD CONSTRAINT scheduling_pkey PRIMARY KEY (name);
ALTER TABLE ONLY public.tasks
    ADD CONSTRAINT tasks_id_key UNIQUE (id);
ALTER TABLE ONLY public.tasks
    ADD CONSTRAINT tasks_idempotency_key_key UNIQUE (idempotency_key);
ALTER TABLE ONLY public.tasks
    ADD CONSTRAINT tasks_pkey PRIMARY KEY (seq);
ALTER TABLE ONLY public.workers
    ADD CONSTRAINT workers_pkey PRIMARY KEY (id);
CREATE INDEX artifacts_task ON public.artifacts USING btree (task_id);
CREATE INDEX audit_entity ON public.audit USING btree (entity_id, id);
CREATE INDEX leases_started ON public.leases USING btree (started_at, id);
CREATE INDEX leases_status ON public.leases USING btree (status);
CREATE INDEX leases_task ON public.leases USING btree (task_id);
CREATE INDEX results_lease ON public.results USING btree (lease_id);
CREATE INDEX results_task ON public.results USING btree (task_id, seq);
CREATE INDEX tasks_context ON public.tasks USING btree (context_id, seq);
CREATE INDEX tasks_status ON public.tasks USING btree (status, seq);
