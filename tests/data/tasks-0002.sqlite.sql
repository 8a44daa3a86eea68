BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0002');
CREATE TABLE artifacts (
	seq INTEGER NOT NULL, 
	id VARCHAR(36) NOT NULL, 
	task_id VARCHAR(36) NOT NULL, 
	job_id VARCHAR(36) NOT NULL, 
	type VARCHAR(32) NOT NULL, 
	created_at VARCHAR(32) NOT NULL, 
	entity_refs TEXT NOT NULL, 
	tags TEXT NOT NULL, 
	content TEXT, 
	object_key VARCHAR(256), 
	PRIMARY KEY (seq), 
	UNIQUE (id)
);
INSERT INTO "artifacts" VALUES(1,'446e2d71-5b8e-5834-87fd-14ffe2746b5d','33a0ba92-4ab7-4071-b0ef-90f2a2899fdf','b5f6b6db-e280-4cce-8e55-aee96bdabcc8','LLM_RESULT','2026-11-28T11:44:00.905+00:00','[]','[]','an answer',NULL);
CREATE TABLE audit (
	id INTEGER NOT NULL, 
	timestamp VARCHAR(32) NOT NULL, 
	action VARCHAR(32) NOT NULL, 
	entity_type VARCHAR(16) NOT NULL, 
	entity_id VARCHAR(64) NOT NULL, 
	actor VARCHAR(64) NOT NULL, 
	detail TEXT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "audit" VALUES(1,'2026-11-28T11:44:00.659+00:00','registered','worker','w1','w1','');
INSERT INTO "audit" VALUES(2,'2026-11-28T11:44:00.659+00:00','registered','worker','w2','w2','');
INSERT INTO "audit" VALUES(3,'2026-11-28T11:44:00.665+00:00','submitted','task','33a0ba92-4ab7-4071-b0ef-90f2a2899fdf','alice@laptop','');
INSERT INTO "audit" VALUES(4,'2026-11-28T11:44:00.668+00:00','leased','task','33a0ba92-4ab7-4071-b0ef-90f2a2899fdf','coordinator','w2: initialize, fewest tasks');
INSERT INTO "audit" VALUES(5,'2026-11-28T11:44:00.684+00:00','started','task','33a0ba92-4ab7-4071-b0ef-90f2a2899fdf','w2','');
INSERT INTO "audit" VALUES(6,'2026-11-28T11:44:00.905+00:00','completed','task','33a0ba92-4ab7-4071-b0ef-90f2a2899fdf','w2','');
INSERT INTO "audit" VALUES(7,'2026-11-28T11:44:00.925+00:00','submitted','task','d9c9027a-78f9-414b-a117-62c22d7210f4','alice@laptop','');
INSERT INTO "audit" VALUES(8,'2026-11-28T11:44:00.925+00:00','leased','task','d9c9027a-78f9-414b-a117-62c22d7210f4','coordinator','w2: retain, it knows this context');
INSERT INTO "audit" VALUES(9,'2026-11-28T11:44:00.933+00:00','started','task','d9c9027a-78f9-414b-a117-62c22d7210f4','w2','');
INSERT INTO "audit" VALUES(10,'2026-11-28T11:44:01.165+00:00','submitted','task','6d23eaad-3469-4923-a56b-bd5b0a67d569','alice@laptop','');
INSERT INTO "audit" VALUES(11,'2026-11-28T11:44:01.177+00:00','submitted','task','658f6c36-89e6-4cdd-bf30-be3487c2d07c','alice@laptop','');
INSERT INTO "audit" VALUES(12,'2026-11-28T11:44:01.182+00:00','drained','worker','w2','alice@laptop','');
CREATE TABLE leases (
	id VARCHAR(36) NOT NULL, 
	task_id VARCHAR(36) NOT NULL, 
	worker_id VARCHAR(64) NOT NULL, 
	context_id VARCHAR(64) NOT NULL, 
	started_at VARCHAR(32) NOT NULL, 
	expires_at VARCHAR(32) NOT NULL, 
	ttl_seconds INTEGER NOT NULL, 
	status VARCHAR(16) NOT NULL, 
	last_heartbeat VARCHAR(32) NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "leases" VALUES('b5f6b6db-e280-4cce-8e55-aee96bdabcc8','33a0ba92-4ab7-4071-b0ef-90f2a2899fdf','w2','blog','2026-11-28T11:44:00.668+00:00','2026-11-28T11:49:00.668+00:00',300,'released','2026-11-28T11:44:00.905+00:00');
INSERT INTO "leases" VALUES('9d5dc310-6187-4392-8cdb-6a3acfe2e141','d9c9027a-78f9-414b-a117-62c22d7210f4','w2','blog','2026-11-28T11:44:00.925+00:00','2026-11-28T11:49:00.925+00:00',300,'active','2026-11-28T11:44:00.925+00:00');
CREATE TABLE results (
	seq INTEGER NOT NULL, 
	id VARCHAR(36) NOT NULL, 
	task_id VARCHAR(36) NOT NULL, 
	worker_id VARCHAR(64) NOT NULL, 
	artifact_id VARCHAR(36), 
	status VARCHAR(16) NOT NULL, 
	output TEXT, 
	error_message TEXT, 
	duration_ms INTEGER NOT NULL, 
	tokens_used INTEGER, 
	completed_at VARCHAR(32) NOT NULL, lease_id VARCHAR(36), 
	PRIMARY KEY (seq), 
	UNIQUE (id)
);
INSERT INTO "results" VALUES(1,'1335badd-1ed3-44a5-8213-feaf19abea8f','33a0ba92-4ab7-4071-b0ef-90f2a2899fdf','w2','446e2d71-5b8e-5834-87fd-14ffe2746b5d','success','an answer',NULL,7,12,'2026-11-28T11:44:00.905+00:00','b5f6b6db-e280-4cce-8e55-aee96bdabcc8');
CREATE TABLE scheduling (
	name VARCHAR(16) NOT NULL, 
	epoch INTEGER NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "scheduling" VALUES('tasks',1);
CREATE TABLE tasks (
	seq INTEGER NOT NULL, 
	id VARCHAR(36) NOT NULL, 
	context_id VARCHAR(64) NOT NULL, 
	agent_slug VARCHAR(64) NOT NULL, 
	prompt TEXT NOT NULL, 
	context_hints TEXT NOT NULL, 
	timeout_sec INTEGER NOT NULL, 
	budget INTEGER NOT NULL, 
	desired_format VARCHAR(8) NOT NULL, 
	max_attempts INTEGER NOT NULL, 
	priority INTEGER NOT NULL, 
	idempotency_key VARCHAR(128), 
	labels TEXT NOT NULL, 
	created_at VARCHAR(32) NOT NULL, 
	status VARCHAR(16) NOT NULL, 
	updated_at VARCHAR(32) NOT NULL, 
	not_before FLOAT NOT NULL, 
	lease_id VARCHAR(36), 
	worker_id VARCHAR(64), 
	attempts INTEGER NOT NULL, 
	interruptions INTEGER NOT NULL, 
	reason TEXT NOT NULL, 
	PRIMARY KEY (seq), 
	UNIQUE (id), 
	UNIQUE (idempotency_key)
);
INSERT INTO "tasks" VALUES(1,'33a0ba92-4ab7-4071-b0ef-90f2a2899fdf','blog','writer','said before the move','[]',120,0,'text',3,5,'k1','[]','2026-11-28T11:44:00.665+00:00','completed','2026-11-28T11:44:00.905+00:00',0.0,'b5f6b6db-e280-4cce-8e55-aee96bdabcc8','w2',1,0,'');
INSERT INTO "tasks" VALUES(2,'d9c9027a-78f9-414b-a117-62c22d7210f4','blog','writer','runs while the coordinator is replaced','[]',120,0,'text',3,5,NULL,'[]','2026-11-28T11:44:00.925+00:00','running','2026-11-28T11:44:00.933+00:00',0.0,'9d5dc310-6187-4392-8cdb-6a3acfe2e141','w2',1,0,'');
INSERT INTO "tasks" VALUES(3,'6d23eaad-3469-4923-a56b-bd5b0a67d569','blog','writer','waits behind it','[]',120,0,'text',3,7,NULL,'[]','2026-11-28T11:44:01.165+00:00','queued','2026-11-28T11:44:01.165+00:00',0.0,NULL,NULL,0,0,'');
INSERT INTO "tasks" VALUES(4,'658f6c36-89e6-4cdd-bf30-be3487c2d07c','gpu','writer','waits for a label','[]',120,0,'text',3,5,NULL,'["gpu"]','2026-11-28T11:44:01.177+00:00','queued','2026-11-28T11:44:01.177+00:00',0.0,NULL,NULL,0,0,'');
CREATE TABLE workers (
	id VARCHAR(64) NOT NULL, 
	registered_at VARCHAR(32) NOT NULL, 
	drained INTEGER NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "workers" VALUES('w1','2026-11-28T11:44:00.659+00:00',0);
INSERT INTO "workers" VALUES('w2','2026-11-28T11:44:00.659+00:00',1);
CREATE INDEX artifacts_task ON artifacts (task_id);
CREATE INDEX audit_entity ON audit (entity_id, id);
CREATE INDEX leases_status ON leases (status);
CREATE INDEX leases_task ON leases (task_id);
CREATE INDEX results_task ON results (task_id, seq);
CREATE INDEX tasks_context ON tasks (context_id, seq);
CREATE INDEX tasks_status ON tasks (status, seq);
CREATE INDEX results_lease ON results (lease_id);
CREATE INDEX leases_started ON leases (started_at, id);
COMMIT;
