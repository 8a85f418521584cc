"""What the data is: configuration, records, identity, reports, errors. Imports no Beam, torch or pymilvus."""
