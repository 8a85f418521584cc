variable "project" {
  description = "The project, for example my-project."
  type        = string
}

variable "region" {
  description = "The region of all resources: that of the corpus and of Milvus, or traffic between regions is paid for."
  type        = string
}

variable "bucket" {
  description = "The bucket for checkpoints, the configuration and Dataflow's files. It is made."
  type        = string
}

variable "corpus_bucket" {
  description = "The bucket of the corpus, which workers read. It must exist; it may be the bucket above."
  type        = string
}

variable "configuration" {
  description = "The configuration of vecbeam, a path on this machine."
  type        = string
  default     = "../dataflow.yaml"
}

variable "image" {
  description = "The image that starts the sync: REGION-docker.pkg.dev/PROJECT/vecbeam/orchestrator:VERSION."
  type        = string
}

variable "network" {
  description = "The network where Milvus is reached."
  type        = string
  default     = "default"
}

variable "subnetwork" {
  description = "Its part in the region."
  type        = string
  default     = "default"
}

variable "schedule" {
  description = "When the sync runs, as cron writes it."
  type        = string
  default     = "17 3 * * *"
}

variable "time_zone" {
  description = "The time zone of the schedule."
  type        = string
  default     = "Etc/UTC"
}

variable "longest_run_hours" {
  description = "After how many hours a run is stopped. The next one resumes it."
  type        = number
  default     = 24

  validation {
    condition     = var.longest_run_hours >= 1 && var.longest_run_hours <= 168
    error_message = "Cloud Run stops a job's task after 168 hours at the latest."
  }
}

variable "alert_email" {
  description = "Who is told that a run failed."
  type        = string
}

variable "branch" {
  description = "The branch of that repository whose workflows may start runs."
  type        = string
  default     = "main"
}

variable "repository" {
  description = "The GitHub repository whose workflows may act here, for example my-organisation/search; \"\" for none."
  type        = string
  default     = ""
}
