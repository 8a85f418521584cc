resource "google_monitoring_notification_channel" "email" {
  display_name = "vecbeam"
  type         = "email"
  labels = {
    email_address = var.alert_email
  }

  depends_on = [google_project_service.used]
}

# Each run that ends with another code than 0, and each that is stopped for its time.
resource "google_monitoring_alert_policy" "failed" {
  display_name          = "vecbeam: a sync failed"
  combiner              = "OR"
  notification_channels = [google_monitoring_notification_channel.email.id]

  conditions {
    display_name = "failed runs"

    condition_threshold {
      filter = join(" AND ", [
        "resource.type = \"cloud_run_job\"",
        "resource.labels.job_name = \"${google_cloud_run_v2_job.sync.name}\"",
        "metric.type = \"run.googleapis.com/job/completed_execution_count\"",
        "metric.labels.result = \"failed\"",
      ])
      comparison      = "COMPARISON_GT"
      threshold_value = 0
      duration        = "0s"

      aggregations {
        alignment_period   = "300s"
        per_series_aligner = "ALIGN_SUM"
      }
    }
  }

  documentation {
    content = "deploy/README.md of vecbeam, \"When something fails\", has what to do for each exit code. The run's report: vecbeam report CONFIG."
  }
}

# A run that never started is no failed run: this one tells that a day passed without a good one.
resource "google_monitoring_alert_policy" "absent" {
  display_name          = "vecbeam: no sync succeeded for a day"
  combiner              = "OR"
  notification_channels = [google_monitoring_notification_channel.email.id]

  conditions {
    display_name = "no succeeded run"

    condition_absent {
      filter = join(" AND ", [
        "resource.type = \"cloud_run_job\"",
        "resource.labels.job_name = \"${google_cloud_run_v2_job.sync.name}\"",
        "metric.type = \"run.googleapis.com/job/completed_execution_count\"",
        "metric.labels.result = \"succeeded\"",
      ])
      # The longest that the service takes. With the period below a run may end some hours later than the day before.
      duration = "84600s"

      aggregations {
        alignment_period   = "14400s"
        per_series_aligner = "ALIGN_SUM"
      }
    }
  }
}
