resource "google_storage_bucket" "vecbeam" {
  name                        = var.bucket
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  # vecbeam removes what nothing refers to (`vecbeam gc --yes`). Soft deletion would keep, and bill, each such file.
  soft_delete_policy {
    retention_duration_seconds = 0
  }

  # Dataflow leaves the files of its jobs behind. No rule may touch the checkpoints: a deleted part is a deleted vector.
  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      age            = 14
      matches_prefix = ["temp/", "staging/"]
    }
  }
}

# Cloud Run shows the bucket as files, so that a new configuration needs no new image.
resource "google_storage_bucket_object" "configuration" {
  bucket = google_storage_bucket.vecbeam.name
  name   = "configuration/vecbeam.yaml"
  source = var.configuration
}

resource "google_artifact_registry_repository" "images" {
  repository_id = "vecbeam"
  location      = var.region
  format        = "DOCKER"

  cleanup_policies {
    id     = "keep-the-last"
    action = "KEEP"
    most_recent_versions {
      keep_count = 5
    }
  }
  cleanup_policies {
    id     = "delete-old"
    action = "DELETE"
    condition {
      older_than = "7776000s"
    }
  }

  depends_on = [google_project_service.used]
}
