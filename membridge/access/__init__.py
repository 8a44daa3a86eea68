"""Who may speak to whom: users of the bus by role, invitations, enrolment and revocation."""
