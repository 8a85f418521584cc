# Who acts: `workers` reads the corpus and writes vectors; `launcher` starts jobs and waits for them; `scheduler` does
# nothing but start the launcher; `planner` reads, for the plans of pull requests, and can change nothing. None has a key.
resource "google_service_account" "workers" {
  account_id   = "vecbeam-workers"
  display_name = "vecbeam: Dataflow workers"

  depends_on = [google_project_service.used]
}

resource "google_service_account" "launcher" {
  account_id   = "vecbeam-launcher"
  display_name = "vecbeam: starts Dataflow jobs and waits for them"

  depends_on = [google_project_service.used]
}

resource "google_service_account" "scheduler" {
  account_id   = "vecbeam-scheduler"
  display_name = "vecbeam: starts the nightly sync"

  depends_on = [google_project_service.used]
}

resource "google_service_account" "planner" {
  account_id   = "vecbeam-planner"
  display_name = "vecbeam: plans, and only reads"

  depends_on = [google_project_service.used]
}

locals {
  workers  = google_service_account.workers.member
  launcher = google_service_account.launcher.member
  planner  = google_service_account.planner.member
}

# Both write checkpoints and leases; Dataflow stages its files in the same bucket.
resource "google_storage_bucket_iam_member" "objects" {
  for_each = { workers = local.workers, launcher = local.launcher }

  bucket = google_storage_bucket.vecbeam.name
  role   = "roles/storage.objectAdmin"
  member = each.value
}

resource "google_storage_bucket_iam_member" "read" {
  bucket = google_storage_bucket.vecbeam.name
  role   = "roles/storage.objectViewer"
  member = local.planner
}

resource "google_storage_bucket_iam_member" "metadata" {
  for_each = { workers = local.workers, launcher = local.launcher, planner = local.planner }

  bucket = google_storage_bucket.vecbeam.name
  role   = "roles/storage.legacyBucketReader"
  member = each.value
}

# The corpus is read and never written.
resource "google_storage_bucket_iam_member" "corpus" {
  for_each = { workers = local.workers, launcher = local.launcher, planner = local.planner }

  bucket = var.corpus_bucket
  role   = "roles/storage.objectViewer"
  member = each.value
}

resource "google_project_iam_member" "worker" {
  project = var.project
  role    = "roles/dataflow.worker"
  member  = local.workers
}

resource "google_project_iam_member" "developer" {
  project = var.project
  role    = "roles/dataflow.developer"
  member  = local.launcher
}

# Machine types, which Dataflow looks up for who starts a job.
resource "google_project_iam_member" "compute" {
  project = var.project
  role    = "roles/compute.viewer"
  member  = local.launcher
}

# The launcher names the workers' account as that of a job.
resource "google_service_account_iam_member" "workers_of_launcher" {
  service_account_id = google_service_account.workers.name
  role               = "roles/iam.serviceAccountUser"
  member             = local.launcher
}

resource "google_artifact_registry_repository_iam_member" "pull" {
  for_each = { workers = local.workers, launcher = local.launcher }

  location   = google_artifact_registry_repository.images.location
  repository = google_artifact_registry_repository.images.name
  role       = "roles/artifactregistry.reader"
  member     = each.value
}

# Workflows of one GitHub repository act without a key (workload identity): as the launcher if they run on the main branch in
# the environment `production` or `nightly`, where GitHub asks for the approval that the environment wants; else as the
# planner. A pull request's ref is never that branch. The subject is compared at its end alone: repositories made since July
# 2026 have numbers in its beginning.
resource "google_iam_workload_identity_pool" "github" {
  count = var.repository == "" ? 0 : 1

  workload_identity_pool_id = "vecbeam-github"
  display_name              = "GitHub Actions"

  depends_on = [google_project_service.used]
}

resource "google_iam_workload_identity_pool_provider" "github" {
  count = var.repository == "" ? 0 : 1

  workload_identity_pool_id          = google_iam_workload_identity_pool.github[0].workload_identity_pool_id
  workload_identity_pool_provider_id = "github"
  attribute_condition                = "assertion.repository == '${var.repository}'"
  attribute_mapping = {
    "google.subject"    = "assertion.sub"
    "attribute.account" = "assertion.ref == 'refs/heads/${var.branch}' && !assertion.event_name.startsWith('pull_request') && (assertion.sub.endsWith(':environment:production') || assertion.sub.endsWith(':environment:nightly')) ? 'launcher' : 'planner'"
  }

  oidc {
    issuer_uri = "https://token.actions.githubusercontent.com"
  }
}

resource "google_service_account_iam_member" "github" {
  for_each = var.repository == "" ? {} : {
    launcher = google_service_account.launcher.name
    planner  = google_service_account.planner.name
  }

  service_account_id = each.value
  role               = "roles/iam.workloadIdentityUser"
  member             = "principalSet://iam.googleapis.com/${google_iam_workload_identity_pool.github[0].name}/attribute.account/${each.key}"
}
