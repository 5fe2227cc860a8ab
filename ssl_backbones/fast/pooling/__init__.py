"""ROIAlign on several cores, and a pooler that uses it."""
