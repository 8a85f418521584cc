resource "google_cloud_run_v2_job" "sync" {
  name                = "vecbeam-sync"
  location            = var.region
  deletion_protection = false

  template {
    task_count  = 1
    parallelism = 1

    template {
      service_account = google_service_account.launcher.email
      timeout         = "${var.longest_run_hours * 3600}s"
      # The retry resumes a run that was cut off. Codes 3 and 4 need a person: the retry ends in the same way, and soon.
      max_retries = 1

      containers {
        image = var.image
        args  = ["sync", "/bucket/configuration/vecbeam.yaml", "--json"]

        resources {
          limits = {
            cpu    = "4"
            memory = "16Gi"
          }
        }

        env {
          name = "MILVUS_TOKEN"
          value_source {
            secret_key_ref {
              secret  = google_secret_manager_secret.milvus_token.secret_id
              version = "latest"
            }
          }
        }

        volume_mounts {
          name       = "bucket"
          mount_path = "/bucket"
        }
      }

      # Into the network where Milvus is; what is on the internet is reached directly.
      vpc_access {
        egress = "PRIVATE_RANGES_ONLY"
        network_interfaces {
          network    = var.network
          subnetwork = var.subnetwork
        }
      }

      volumes {
        name = "bucket"
        gcs {
          bucket    = google_storage_bucket.vecbeam.name
          read_only = true
        }
      }
    }
  }

  depends_on = [
    google_project_service.used,
    google_secret_manager_secret_iam_member.milvus_token,
    google_storage_bucket_iam_member.objects,
  ]
}

resource "google_cloud_run_v2_job_iam_member" "scheduler" {
  name     = google_cloud_run_v2_job.sync.name
  location = google_cloud_run_v2_job.sync.location
  role     = "roles/run.invoker"
  member   = google_service_account.scheduler.member
}

resource "google_cloud_scheduler_job" "sync" {
  name      = "vecbeam-sync"
  region    = var.region
  schedule  = var.schedule
  time_zone = var.time_zone

  # The call that starts the run, not the run.
  attempt_deadline = "60s"
  retry_config {
    retry_count = 3
  }

  http_target {
    http_method = "POST"
    uri         = "https://run.googleapis.com/v2/${google_cloud_run_v2_job.sync.id}:run"

    oauth_token {
      service_account_email = google_service_account.scheduler.email
    }
  }

  depends_on = [google_project_service.used]
}
