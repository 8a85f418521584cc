# The entry for Milvus's token. Its value is not here, or it would lie in Terraform's state:
#   printf %s "$MILVUS_TOKEN" | gcloud secrets versions add milvus-token --data-file=-
resource "google_secret_manager_secret" "milvus_token" {
  secret_id = "milvus-token"

  replication {
    auto {}
  }

  depends_on = [google_project_service.used]
}

resource "google_secret_manager_secret_iam_member" "milvus_token" {
  for_each = { workers = local.workers, launcher = local.launcher }

  secret_id = google_secret_manager_secret.milvus_token.secret_id
  role      = "roles/secretmanager.secretAccessor"
  member    = each.value
}
