output "images" {
  description = "Where images are pushed to."
  value       = "${google_artifact_registry_repository.images.location}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.images.repository_id}"
}

output "workers" {
  description = "runner.service_account_email of the configuration."
  value       = google_service_account.workers.email
}

output "secret" {
  description = "MILVUS_TOKEN_SECRET of the workers' image."
  value       = "${google_secret_manager_secret.milvus_token.id}/versions/latest"
}

output "start" {
  description = "Starts a sync now, and waits for it."
  value       = "gcloud run jobs execute ${google_cloud_run_v2_job.sync.name} --region ${var.region} --wait"
}

output "launcher" {
  description = "The variable VECBEAM_SERVICE_ACCOUNT of the GitHub repository."
  value       = google_service_account.launcher.email
}

output "planner" {
  description = "The variable VECBEAM_PLAN_ACCOUNT of the GitHub repository."
  value       = google_service_account.planner.email
}

output "workload_identity_provider" {
  description = "The variable VECBEAM_IDENTITY_PROVIDER of the GitHub repository."
  value       = one(google_iam_workload_identity_pool_provider.github[*].name)
}
