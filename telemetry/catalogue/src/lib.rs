//! Every metric that opsctl and the reference services export, declared once.
