"""Steps that commands share: corpus and collection as they are, the judgement, the snapshot, the publication."""
